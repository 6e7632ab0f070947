"""Runs an Apache Beam pipeline instead of the pool of processes and returns its result.

The pipelines are in `data.corpus.build_beam` and `data.packing.build_beam`. Besides Beam's own shuffle, workers
exchange files in the scratch folder of the output, which all workers can reach: one file per input or window,
written atomically, so that any step can run twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.parallel import build_dir

if TYPE_CHECKING:
    import apache_beam

DIRECT, DATAFLOW, DASK = "DirectRunner", "DataflowRunner", "DaskRunner"
_BEAM_NAMES = {
    DIRECT: "FnApiRunner",  # Beam's current DirectRunner first downloads a program
    DASK: "apache_beam.runners.dask.dask_runner.DaskRunner",
}
_USER_ERROR = "mistake.json"


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """A Beam runner and its options.

    Attributes:
      runner: Beam's name of it. DirectRunner runs in this process, or in several local ones
        (`--direct_running_mode=multi_processing --direct_num_workers=4`). DaskRunner runs on a cluster of Dask
        (`--dask_client_address=tcp://HOST:8786 --dask_npartitions=64`), which repeats the work of a lost process.
      options: each "--name=value" or "--name".
    """

    runner: str = DIRECT
    options: tuple[str, ...] = ()

    def check(self, paths: Iterable[str]) -> None:
        """Checks that Beam is installed, has this runner and these options, and that its workers can reach the paths.

        Raises:
          UserError: a check failed.
        """
        try:
            with _no_warnings():
                from apache_beam.options.pipeline_options import StandardOptions
        except ImportError as error:
            raise UserError("--runner needs Apache Beam; install electramed_jax[beam]") from error
        runners = sorted({*StandardOptions.KNOWN_RUNNER_NAMES, DASK})
        if self.runner not in runners:
            known = ", ".join(runners)
            raise UserError(f"runner={self.runner!r}: Beam has no such runner; use one of {known}")
        if self.runner == DASK:
            try:
                importlib.import_module("distributed")  # first: without it Beam's module fails in another way
                import apache_beam.runners.dask.dask_runner
            except ImportError as error:
                raise UserError("--runner=DaskRunner needs Dask; install electramed_jax[dask]") from error
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
        """Runs a pipeline, unless an interrupted run has its complete result; returns the result, in any order.

        Args:
          work: the scratch folder.
          name: file name of the result in `work`, without ".json".
          build: adds the steps to the pipeline and returns the collection of results, JSON.

        Raises:
          UserError: raised by a worker (see `report_user_errors`), or the pipeline was cancelled.
        """
        result = files.join(work, f"{name}.json")
        if not files.exists(result):
            files.remove(files.join(work, _USER_ERROR))
            console.say(f"{name}: running a pipeline on {self.runner}")
            with _runner_logging(self.runner), _worker_errors(work):
                self._run(build, result)
        if not files.exists(result):
            raise UserError(f"{name}: the pipeline was stopped before it finished; run the same command again")
        return files.read_json(result, list[Any], advice=build_dir.ADVICE)

    def _run(self, build: Callable[[apache_beam.Pipeline], apache_beam.PCollection], result: str) -> None:
        import apache_beam as beam

        pipeline = beam.Pipeline(_BEAM_NAMES.get(self.runner, self.runner), self._pipeline_options())
        values = build(pipeline)
        values | "pair" >> beam.Map(_pair) | "gather" >> beam.GroupByKey() | "result" >> beam.Map(_write, result)
        running: Any = pipeline.run()
        running.wait_until_finish()
        if self.runner == DASK:
            running.client.close()  # otherwise it looks for the scheduler until this process ends

    def _pipeline_options(self) -> Any:
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions([*self.options, f"--runner={_BEAM_NAMES.get(self.runner, self.runner)}"])

    def _check_options(self) -> None:
        if invalid := [option for option in self.options if not option.startswith("--")]:
            raise UserError(f"beam_options: {invalid[0]!r} is not an option; use --name=value or --name")
        output = io.StringIO()
        try:
            with contextlib.redirect_stderr(output), _no_warnings():
                options = self._pipeline_options()
                known = options.get_all_options()
                unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
        except SystemExit:  # raised by Beam's argument parser
            raise UserError(f"beam_options: {output.getvalue().splitlines()[-1]}") from None
        if unknown:
            raise UserError(f"beam_options: unknown option --{min(unknown)}; see the documentation of the runner")


def report_user_errors(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wraps a pipeline function so that the launching process raises the UserErrors of its workers.

    Args:
      function: (element, path of the scratch folder, ...) -> elements.
    """

    @functools.wraps(function)
    def reporting(element: Any, work: str, *args: Any) -> Iterator[Any]:
        try:
            yield from function(element, work, *args)
        except UserError as error:
            files.write_json(files.join(work, _USER_ERROR), str(error))
            raise

    return reporting


def split_outputs(
    collection: apache_beam.PCollection, label: str, outputs: dict[str, Any]
) -> dict[str, apache_beam.PCollection]:
    """Returns the collection of each output of a step that yields (name of the output, element).

    It replaces Beam's tagged outputs, which its Dask runner does not separate: a consumer of one gets the elements of
    all.

    Args:
      label: of the step.
      outputs: name -> type of its elements.
    """
    import apache_beam as beam

    return {
        name: collection | f"{label}: {name}" >> beam.FlatMap(_select, name).with_output_types(of_elements)
        for name, of_elements in outputs.items()
    }


@contextlib.contextmanager
def _worker_errors(work: str) -> Iterator[None]:
    """Raises the UserError of a worker in place of the runner's exception around it."""
    try:
        yield
    except Exception:
        if files.exists(path := files.join(work, _USER_ERROR)):
            raise UserError(files.read_json(path, str)) from None
        raise


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Hides warnings, such as those about Google libraries that are not installed."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _runner_logging(runner: str) -> Iterator[None]:
    """Prints the log of the Dataflow runner. Other runners log nothing, since they raise their errors."""
    handlers: list[logging.Handler] = [_ConsoleHandler()] if runner == DATAFLOW else []
    logger = logging.getLogger("apache_beam.runners.dataflow" if runner == DATAFLOW else "apache_beam")
    level = logging.INFO if runner == DATAFLOW else logging.CRITICAL
    before = logger.level, logger.propagate, logger.handlers
    logger.setLevel(level)
    logger.propagate, logger.handlers = not handlers, handlers
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate, logger.handlers = before[1:]


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.say(record.getMessage())


def _pair(value: Any) -> tuple[int, Any]:
    return 0, value


def _write(group: tuple[int, Iterable[Any]], path: str) -> None:
    files.write_json(path, list(group[1]))


def _select(element: tuple[str, Any], output: str) -> Iterator[Any]:
    name, value = element
    if name == output:
        yield value
