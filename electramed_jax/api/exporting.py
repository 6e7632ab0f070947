"""Export from Python: checkpoints to Hugging Face folders with a model card."""

from __future__ import annotations

import dataclasses
import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.folder_owner import own_folder
from electramed_jax.common.processes.main_console import log_main, warn_main
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import CLS
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.finetune import card_scores, load_model, postprocess_config, results, stages
from electramed_jax.finetune.training import workdir as finetune_workdir
from electramed_jax.hf import card, card_sections, convert, finetuned, onnx_export, push_to_hub
from electramed_jax.hf.format import mapping, model_dir
from electramed_jax.pretrain import history
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.pretrain.workdir import read_vocab
from electramed_jax.report.pictures import learning_curves
from electramed_jax.training import sharding

PRETRAINED_OPTIONS = ("step", "data_license", "results")
FINETUNED_OPTIONS = ("seed", "onnx")


@dataclasses.dataclass(frozen=True)
class _Request:
    """The arguments of `export`."""

    workdir: str
    output: str
    step: int | None
    seed: int | None
    onnx: bool | None
    name: str | None
    license: str | None
    base_model: str | None
    data_license: Sequence[str] | None
    results: Sequence[str] | None
    power: card_sections.PowerFacts
    push: str | None
    tag: str | None
    private: bool


def export(
    workdir: str,
    output: str,
    *,
    step: int | None = None,
    seed: int | None = None,
    onnx: bool | None = None,
    name: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    data_license: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
    watts: float | None = None,
    carbon_intensity: float | None = None,
    push: str | None = None,
    tag: str | None = None,
    private: bool = False,
    takeover: bool = False,
) -> dict[str, Any]:
    """Writes Hugging Face folders: output/discriminator and output/generator of pre-training, output of fine-tuning.

        electramed_jax.export("runs/small", "models/small")
        transformers.AutoModel.from_pretrained("models/small/discriminator")

    Args:
      workdir: folder of a pre-training or fine-tuning run.
      output: folder to write.
      step: step of the pre-training checkpoint; None: the newest.
      seed: seed of the fine-tuning run; None: the best on dev.
      onnx: also write model.onnx of a fine-tuned model.
      name: name of the model on its card; None: that of the workdir.
      license: licence of the weights on the card.
      base_model: "USER/NAME" on the Hub of the model that this one was trained from, for the card.
      data_license: "PATTERN=LICENCE" of the source files with matching names, for the card.
      results: workdirs of models fine-tuned from this one, for the scores on the card.
      watts: power of a device, for the energy on the card; None: by device kind.
      carbon_intensity: grams of CO2 equivalents per kWh of the electricity, for the emissions on the card; None: it
        states none.
      push: "USER/NAME" on the Hugging Face Hub to upload to.
      tag: name of the uploaded revision on the Hub, such as "v1.0".
      private: create new repositories on the Hub as private.
      takeover: take the folder over from a process on another host that has ended.

    Returns:
      The paths written, with the step or the seed, and the commits of an upload.

    Raises:
      UserError: the workdir or an option is wrong; the message names the change.
    """
    for option, value, wanted in (
        ("watts", watts, "the power of one device in watts"),
        ("carbon_intensity", carbon_intensity, "grams of CO2 equivalents per kWh of the electricity"),
    ):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{option}={value:g}: wanted {wanted}, above 0")
    power = card_sections.PowerFacts(watts, carbon_intensity)
    request = _Request(
        workdir, output, step, seed, onnx, name, license, base_model, data_license, results, power, push, tag, private
    )
    finetuned = finetune_workdir.is_finetuned(workdir)
    for option in PRETRAINED_OPTIONS if finetuned else FINETUNED_OPTIONS:
        if getattr(request, option) is not None:
            kind = "fine-tuned" if finetuned else "pre-trained"
            raise UserError(f"--{option} does not apply to {workdir}, which contains a {kind} model; omit it")
    for option in ("private", "tag"):
        if getattr(request, option) and not push:
            raise UserError(f"--{option} has no effect without --push=USER/NAME; add it or omit --{option}")
    with distributed.distributed_context(), own_folder(output, takeover=takeover):
        return _export_finetuned(request) if finetuned else _export_pretrained(request)


def _export_finetuned(request: _Request) -> dict[str, Any]:
    repositories = push_to_hub.name_repositories(request.push, {"": request.output}) if request.push else {}
    trained = load_model.load_finetuned(request.workdir, request.seed)
    spec = trained.spec
    result = {"workdir": request.workdir, "seed": trained.seed, "output": request.output}
    if not distributed.is_main():
        return result
    data, recipe, scores = results.card_data(trained.results, trained.scores)
    name = _name(request)
    hours = stages.device_hours(request.workdir)
    metadata = {
        **_base_model(request),
        **card_scores.hub_metadata(name, [trained.results], trained.seed),
        **card_sections.emissions_metadata(hours, request.power, "fine-tuning"),
    }
    sections = [(f"Learning curve of seed {trained.seed}", results.dev_curve(trained.results, trained.scores))]
    if hardware := card_sections.render_hardware(hours, request.power):
        scope = f"Fine-tuning alone, all {len(trained.results['seeds'])} seeds."
        sections.append(("Hardware and energy", f"{scope}\n\n{hardware}"))
    finetuned.export_finetuned(
        request.output,
        trained.params,
        spec.model,
        trained.tokenizer,
        kind=spec.head.kind,
        labels=spec.head.labels,
        loss=spec.head.loss,
        postprocess=postprocess_config.to_json(trained.postprocess),
        card_data=card.CardData(
            name, data, recipe, scores, license=request.license, sections=sections, metadata=metadata
        ),
        pooling=spec.head.pooling,
        markers=spec.head.markers,
    )
    log_main(f"wrote {request.output} (seed {trained.seed})")
    if spec.head.pooling != CLS:
        warn_main(
            f"warning: transformers has no head that reads config.text.pooling={spec.head.pooling} and refuses this "
            "folder; open it with electramed predict, serve or Predictor, or use its model.onnx (--onnx); for "
            "transformers train with config.text.pooling=cls"
        )
    if request.onnx:
        difference = onnx_export.export_onnx(request.output)
        log_main(f"wrote {onnx_export.ONNX_FILE}; its logits differ from those of torch by up to {difference:.1g}")
        result["onnx_difference"] = difference
    return result | _push(request, repositories, f"Seed {trained.seed}")


def _export_pretrained(request: _Request) -> dict[str, Any]:
    mesh = sharding.make_mesh(MeshConfig())  # the devices of this machine, not those of the training
    licenses = card_sections.parse_licences(request.data_license or [])
    finetuned_results = [load_model.read_results(folder) for folder in request.results or []]
    run_history = history.read_history(request.workdir)
    folders = {network: files.join(request.output, network) for network in convert.trained_networks(run_history.config)}
    _check_no_other_network(request.output, folders)
    repositories = push_to_hub.name_repositories(request.push, folders) if request.push else {}
    config, state = load_pretrained_state(request.workdir, mesh, request.step)
    step = int(state.step)
    params = sharding.to_host(state.params)
    result = {"workdir": request.workdir, "step": step} | folders
    if not distributed.is_main():
        return result
    manifest = history.read_manifest(request.workdir)
    pictures = _pictures(request.workdir, step)
    facts = _card_data(request, run_history, manifest, step, licenses, finetuned_results, list(pictures))
    convert.export_networks(
        folders,
        params,
        config.model,
        read_vocab(request.workdir, config),
        lower_case=manifest.lower_case,
        keep_accents=manifest.keep_accents,
        is_electric=config.objective.kind == mapping.ELECTRIC,
        card_data=facts,
        pictures=pictures,
    )
    for folder in folders.values():
        log_main(f"wrote {folder}")
    return result | _push(request, repositories, f"Step {step:,} of {config.total_steps:,}")


def _check_no_other_network(output: str, folders: Mapping[str, str]) -> None:
    """Raises UserError if `output` holds a network of another export, which would open as the new one's partner."""
    for network in mapping.NETWORKS:
        folder = files.join(output, network)
        if network not in folders and files.exists(files.join(folder, model_dir.CONFIG)):
            raise UserError(
                f"{folder}: holds the {network} of another model; this run trains no {network}; remove the folder, or "
                "choose another --output"
            )


def _card_data(
    request: _Request,
    run_history: Any,
    manifest: Any,
    step: int,
    licenses: Mapping[str, str],
    finetuned_results: Sequence[Any],
    pictures: Sequence[str],
) -> Any:
    """Returns the `card.CardData` of a pre-training run at `step`."""
    name = _name(request)
    facts = card.card_data_for_run(
        run_history.config,
        manifest,
        name=name,
        step=step,
        metrics=_last_validation(run_history, step),
        phases=run_history.phases(step),
        license=request.license,
    )
    sections = card_sections.run_sections(
        run_history, manifest, step, licences=licenses, power=request.power, pictures=pictures
    )
    scores = card_scores.scores_table(finetuned_results)
    return dataclasses.replace(
        facts,
        sections=[*sections, ("Fine-tuned", scores)] if scores else sections,
        metadata={
            **facts.metadata,
            **_base_model(request),
            **card_scores.hub_metadata(name, finetuned_results),
            **card_sections.emissions_metadata(run_history.device_hours(step), request.power, "pre-training"),
        },
    )


def _base_model(request: _Request) -> dict[str, str]:
    return {"base_model": request.base_model} if request.base_model else {}


def _name(request: _Request) -> str:
    return request.name or posixpath.basename(request.workdir.rstrip("/"))


def _last_validation(run_history: Any, step: int) -> dict[str, float]:
    """Returns the metrics of the last validation at or before `step`; {} if there is none."""
    entries = run_history.split("validation", step)
    if not entries:
        return {}
    metrics = {name: value for name, value in entries[-1].items() if name not in ("step", "split")}
    return {"measured at step": entries[-1]["step"]} | metrics


def _pictures(workdir: str, step: int) -> dict[str, bytes]:
    """Returns PNGs of the learning curves by file name; {} if matplotlib is not installed."""
    try:
        return learning_curves(workdir, step)
    except UserError as error:
        log_main(f"the card has no learning curves: {error}")
        return {}


def _push(request: _Request, repositories: Mapping[str, str], message: str) -> dict[str, Any]:
    if not repositories:
        return {}
    pushed = push_to_hub.push_folders(repositories, private=request.private, message=message, tag=request.tag)
    for commit in pushed.values():
        log_main(f"pushed: {commit}" + (f", tagged {request.tag}" if request.tag else ""))
    return {"pushed": pushed}
