"""The verbs that every recipe shares, one short file each. They hold no layers and never call a recipe back."""
