"""A persistent compilation cache in the workdir, so that a resumed run does not compile its step again."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import platform
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import warn_main
from electramed_jax.common.storage import files

CACHE_FOLDER = "compiled"  # in the workdir; may be deleted at any time
MIN_COMPILE_SECONDS = 0.5  # programs that compile faster are not stored
CACHE_OPTIONS = ("jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_enable_xla_caches")
ENTRY_SUFFIX = "-cache"  # of the files that jax writes
FETCH_THREADS = 8


class CompilationCache:
    """The compiled programs of a workdir. Those of a remote one are used through a local folder.

    jax can use a remote folder itself, but sends a request for each of the hundreds of programs of a run, small ones
    too. Here all programs are fetched at the start, and new ones are uploaded by a thread. An error of storage is a
    warning.
    """

    def __init__(self, remote: str | None, local: str):
        """Uses the folder `local`, and fetches the programs in `remote`, if it is not None."""
        self._remote, self._local = remote, local
        self._stored: set[str] = set()
        self._uploads = futures.ThreadPoolExecutor(1, "compiled")
        if remote is not None:
            self._try(self._fetch)

    def store(self) -> None:
        """Starts to upload the new programs, in the main process; does nothing for a local workdir."""
        if self._remote is not None and distributed.is_main():
            self._uploads.submit(self._try, self._upload)

    def close(self) -> None:
        """Waits for the uploads."""
        self._uploads.shutdown(wait=True)

    def _fetch(self) -> None:
        assert self._remote is not None
        if not files.exists(self._remote):
            return
        names = [name for name in files.list_dir(self._remote) if name.endswith(ENTRY_SUFFIX)]
        with futures.ThreadPoolExecutor(FETCH_THREADS) as threads:
            contents = threads.map(lambda name: files.read_bytes(files.join(self._remote or "", name)), names)
            for name, content in zip(names, contents, strict=True):
                pathlib.Path(self._local, name).write_bytes(content)
                self._stored.add(name)

    def _upload(self) -> None:
        assert self._remote is not None
        for path in sorted(pathlib.Path(self._local).glob(f"*{ENTRY_SUFFIX}")):
            if path.name not in self._stored:
                with files.atomic_write(files.join(self._remote, path.name)) as file:
                    file.write(path.read_bytes())
                self._stored.add(path.name)

    def _try(self, transfer: Callable[[], None]) -> None:
        try:
            transfer()
        except (UserError, OSError) as error:
            warn_main(f"{self._remote}: compiled programs are not shared with the next start ({first_line(error)})")


@contextlib.contextmanager
def use_compilation_cache(workdir: str) -> Iterator[CompilationCache | None]:
    """Inside the context, jax stores compiled programs in workdir/compiled and reuses them.

    Does nothing, and yields None, if the user set a folder (JAX_COMPILATION_CACHE_DIR) or disabled the cache
    (JAX_ENABLE_COMPILATION_CACHE=false). The key of a program is its text, options, devices and versions. jax
    recompiles entries that cannot be read.
    """
    if _option("jax_compilation_cache_dir") or not _option("jax_enable_compilation_cache"):
        yield None
        return
    folder, local = files.join(workdir, CACHE_FOLDER, _platform_folder()), files.local_path(workdir)
    before = {name: _option(name) for name in CACHE_OPTIONS}
    with contextlib.ExitStack() as stack:
        if local is None:
            used = stack.enter_context(tempfile.TemporaryDirectory(prefix="electramed-compiled-"))
        else:
            used = files.join(local, CACHE_FOLDER, _platform_folder())
        cache = CompilationCache(folder if local is None else None, used)
        seconds, xla_caches = before.values()
        # XLA's own caches would put their folder, a temporary one, into the key of every program.
        _set_cache(used, min(seconds, MIN_COMPILE_SECONDS), "none" if local is None else xla_caches)
        try:
            yield cache
        finally:
            _set_cache(None, seconds, xla_caches)
            cache.store()
            cache.close()


def _option(name: str) -> Any:
    return getattr(jax.config, name)  # jax sets its options as attributes at run time


def _set_cache(folder: str | None, *values: Any) -> None:
    """Sets the folder and the values of `CACHE_OPTIONS`."""
    for name, value in (("jax_compilation_cache_dir", folder), *zip(CACHE_OPTIONS, values, strict=True)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax reads the options once


def _platform_folder() -> str:
    """Returns the name of the platform and the version of jax, for CPUs with a hash of the instruction set.

    Programs are found by the version that compiled them, and those for CPUs run only on their own instruction set;
    several hosts may share a workdir.
    """
    if jax.default_backend() != "cpu":
        return f"{jax.default_backend()}-jax{jax.__version__}"
    features = platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"cpu-jax{jax.__version__}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
