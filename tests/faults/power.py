"""What a disk holds after the power went: only what was synced is sure to be there.

A file's contents are sure as they were at its last fsync, and a folder's entries (what it holds under which name) as
they were at the folder's own last fsync. Anything later may be there, too, or in part. So a recorder of `os.fsync` is
enough: it keeps a copy of what each call makes sure. Files that are written and synced by other means than Python's
`os.fsync` count as not synced.
"""

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

FATES = ("lost", "emptied", "mixed")


class Disk:
    """Records what is sure to be on the disk of the tree under `root`, in the folder `record`, which is made."""

    def __init__(self, root: Path, record: Path):
        self.root, self.record = root, record
        self.held: list[int] = []  # Descriptors: while one is open, no other file gets the number of its inode.
        record.mkdir(parents=True)
        for path in (root, *root.rglob("*")):  # What was there before is.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                self.synced(descriptor)
            finally:
                os.close(descriptor)

    def synced(self, descriptor: int) -> None:
        """Notes that a file or folder was just synced."""
        path = Path(f"/proc/self/fd/{descriptor}")
        if not path.resolve().is_relative_to(self.root):
            return
        self.held.append(os.dup(descriptor))
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            _entries_file(self.record, status.st_ino).write_text(json.dumps(_entries(path)))
        else:
            shutil.copyfile(path, _contents_file(self.record, status.st_ino))

    def close(self) -> None:
        while self.held:
            os.close(self.held.pop())


def cut(root: Path, record: Path, target: Path, fate: str, seed: int = 0) -> None:
    """Writes to `target` what is left of `root` when the power goes now.

    Args:
        root: The tree as the processes saw it last.
        record: What a `Disk` recorded of it.
        target: A folder to make.
        fate: Of what was not synced. "lost": all of it. "emptied": files and their names are there, what was written
            into them is not. "mixed": each folder and each file keeps it, loses it, or a file keeps a part.
        seed: Of "mixed".
    """
    draw = random.Random(seed)
    paths = {path.stat().st_ino: path for path in (root, *root.rglob("*"))}

    def chosen(sure, latest, in_part: Iterable[Callable] = ()):
        if fate != "mixed" or sure == latest:
            return sure
        return draw.choice([lambda: sure, lambda: latest, *in_part])()

    def write_folder(inode, into):
        into.mkdir()
        recorded = _entries_file(record, inode)
        sure = json.loads(recorded.read_text()) if recorded.exists() else {}
        latest = _entries(paths[inode]) if inode in paths else {}
        entries = latest if fate == "emptied" else chosen(sure, latest)
        for name, (inner, is_folder) in sorted(entries.items()):
            (write_folder if is_folder else write_file)(inner, into / name)

    def write_file(inode, into):
        recorded = _contents_file(record, inode)
        sure = recorded.read_bytes() if recorded.exists() else b""
        latest = paths[inode].read_bytes() if inode in paths else sure
        into.write_bytes(chosen(sure, latest, [lambda: latest[: draw.randrange(len(latest) + 1)]]))

    write_folder(root.stat().st_ino, target)


def _entries(folder):
    return {entry.name: [entry.inode(), entry.is_dir(follow_symlinks=False)] for entry in os.scandir(folder)}


def _entries_file(record, inode):
    return record / f"{inode}.entries"


def _contents_file(record, inode):
    return record / f"{inode}.contents"
