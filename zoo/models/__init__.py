"""One file per family, each with one public builder."""
