"""Arrow files behind a URL: copied once into a local folder, and read from there."""

import hashlib
import logging
from pathlib import Path

import fsspec
from filelock import FileLock

from vlc.common.errors import UserError
from vlc.common.files import write_atomically

_log = logging.getLogger(__name__)


def is_url(root: str | Path) -> bool:
    return "://" in str(root)


class RemoteFolder:
    """The files of a URL that fsspec understands (s3://, gs://, https://, file://, memory://, ...).

    cache: folder for the copies. Each version of a file is copied once, by one process at a time; a copy that was
    interrupted is made anew. Raises UserError if the protocol is unknown or needs a package that is not installed, if
    the URL cannot be listed, or without a cache.
    """

    def __init__(self, url: str, cache: str | Path | None):
        if cache is None:
            raise UserError(
                f"data_root={url!r} is a URL, and its files are copied before they are read: pass data_cache=FOLDER, with "
                "room for them"
            )
        self.url, self.cache = url.rstrip("/"), Path(cache).expanduser()
        try:
            self._system, self._folder = fsspec.core.url_to_fs(self.url)
            listed = self._system.ls(self._folder, detail=False)
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"data_root={url!r} cannot be read: {error}") from error
        self.names = {path.rstrip("/").rsplit("/", 1)[-1] for path in listed}

    def fetch(self, name: str) -> Path:
        """The local copy of a file. Raises OSError where it cannot be made."""
        remote = f"{self._folder.rstrip('/')}/{name}"
        version = f"{self.url}\0{self._system.ukey(remote)}"  # ukey changes with the contents: an ETag, a time, a size
        local = self.cache / hashlib.sha256(version.encode()).hexdigest()[:16] / name
        local.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{local}.lock"):
            if not local.exists():
                _log.warning("Copying %s/%s to %s", self.url, name, local)
                with write_atomically(local) as partial:
                    self._system.get_file(remote, str(partial))
        return local
