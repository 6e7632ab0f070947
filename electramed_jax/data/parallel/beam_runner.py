"""An Apache Beam pipeline in the place of the pool of processes: where it runs, and what comes back.

What the pipelines do is in `build_documents_beam` and `build_rows_beam`. What their workers leave each
other beside Beam's own shuffle lies in the scratch folder of the output, which all of them reach: one
file per input or window, written whole or not at all, so that any piece of work can be done twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

if TYPE_CHECKING:
    import apache_beam

DIRECT, DATAFLOW = "DirectRunner", "DataflowRunner"
_OFFLINE = {DIRECT: "FnApiRunner"}  # the DirectRunner of today would first fetch a program from the network
_MISTAKE = "mistake.json"


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """A runner of Beam's by name, and options for it, each "--name=value" or "--name".

    DirectRunner is this process, or several beside it (`--direct_running_mode=multi_processing
    --direct_num_workers=4`); the others are Beam's.
    """

    runner: str = DIRECT
    options: tuple[str, ...] = ()

    def check(self, paths: Iterable[str]) -> None:
        """Makes sure that Beam is there and knows the runner and its options, and that its workers reach the paths.

        Raises:
          UserError: something of this is not so.
        """
        try:
            with _silence():
                from apache_beam.options.pipeline_options import StandardOptions
        except ImportError as error:
            raise UserError("--runner needs Apache Beam; install electramed_jax[beam]") from error
        if self.runner not in StandardOptions.KNOWN_RUNNER_NAMES:
            known = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
            raise UserError(f"runner={self.runner!r}: Beam has none of that name; it has {known}")
        self._check_options()
        if self.runner != DATAFLOW:
            return
        if local := [path for path in paths if files.local_path(path) is not None]:
            raise UserError(f"{local[0]}: Dataflow's workers cannot reach it; give a path that begins with gs://")
        try:
            import apache_beam.runners.dataflow.internal.apiclient  # noqa: F401
        except ImportError as error:
            raise UserError(
                "--runner=DataflowRunner needs Google's libraries; install electramed_jax[dataflow]"
            ) from error

    def run(self, work: str, name: str, build: Callable[[apache_beam.Pipeline], apache_beam.PCollection]) -> list[Any]:
        """Runs a pipeline to its end, unless a run that was cut short had come to it; returns its result, in no order.

        Args:
          work: the scratch folder.
          name: of the result's file in it.
          build: makes the pipeline; returns the result, JSON.

        Raises:
          UserError: a worker met it (see `report_user_errors`).
        """
        result = files.join(work, f"{name}.json")
        if not files.exists(result):
            files.remove(files.join(work, _MISTAKE))
            console.say(f"{name}: a pipeline on {self.runner}")
            with _heard(self.runner), _mistakes_of_workers(work):
                self._run(build, result)
        if not files.exists(result):
            raise UserError(f"{name}: the pipeline was stopped before its end; run the same command again")
        return files.read_json(result)

    def _run(self, build: Callable[[apache_beam.Pipeline], apache_beam.PCollection], result: str) -> None:
        import apache_beam as beam

        pipeline = beam.Pipeline(_OFFLINE.get(self.runner, self.runner), self._pipeline_options())
        values = build(pipeline)
        values | "gather" >> beam.combiners.ToList() | "result" >> beam.Map(_write, result)
        pipeline.run().wait_until_finish()

    def _pipeline_options(self) -> Any:
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions([*self.options, f"--runner={self.runner}"])

    def _check_options(self) -> None:
        if strange := [option for option in self.options if not option.startswith("--")]:
            raise UserError(f"beam_options: {strange[0]!r} is no option; write --name=value or --name")
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint), _silence():
                options = self._pipeline_options()
                known = options.get_all_options()
                unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
        except SystemExit:  # Beam's parser ends the program
            raise UserError(f"beam_options: {complaint.getvalue().splitlines()[-1]}") from None
        if unknown:
            raise UserError(f"beam_options: Beam knows no --{min(unknown)}; look for it in the runner's documentation")


def report_user_errors(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Lets the launching process know of a UserError that a worker meets.

    Args:
      function: (element, path of the scratch folder, ...) -> elements.
    """

    @functools.wraps(function)
    def telling(element: Any, work: str, *args: Any) -> Iterator[Any]:
        try:
            yield from function(element, work, *args)
        except UserError as error:
            files.write_json(files.join(work, _MISTAKE), str(error))
            raise

    return telling


@contextlib.contextmanager
def _mistakes_of_workers(work: str) -> Iterator[None]:
    """Raises what a worker told of, which a runner wraps in its own words."""
    try:
        yield
    except Exception:
        if files.exists(path := files.join(work, _MISTAKE)):
            raise UserError(files.read_json(path)) from None
        raise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps back warnings, as of libraries of Google's that are not there."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _heard(runner: str) -> Iterator[None]:
    """Shows what the Dataflow runner says of its job; of the others nothing, since what matters there is raised."""
    beam, dataflow = (logging.getLogger(name) for name in ("apache_beam", "apache_beam.runners.dataflow"))
    if runner == DATAFLOW:
        logger, level, handlers = dataflow, logging.INFO, [_Said()]
    else:
        logger, level, handlers = beam, logging.CRITICAL, []
    before = logger.level, logger.propagate, logger.handlers
    logger.setLevel(level)
    logger.propagate, logger.handlers = not handlers, handlers
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate, logger.handlers = before[1:]


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.say(record.getMessage())


def _write(values: list[Any], path: str) -> None:
    files.write_json(path, values)
