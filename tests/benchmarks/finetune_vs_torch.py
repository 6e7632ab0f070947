"""Times a short fine-tuning run and `predict` next to plain loops of transformers on torch, interleaved.

    python tests/benchmarks/finetune_vs_torch.py --corpus=NCBI-disease --vocab=vocab.txt --texts=abstracts.jsonl --rounds=3

Both train the encoder of `pretrain_tiny.py` from scratch for an epoch on the same sentences (words split at white space,
batches of 32, AdamW, dropout 0.1), score dev and test, and then find entities in the same texts, in windows of 128 word
pieces that overlap by half. The peer uses SDPA, pads each batch to its longest sentence and sorts texts by length. Each
round runs ours and theirs, in a process of its own; the table has the median over the rounds of

    epoch     the process, start-up and compilation included
    steps     training steps alone, without the first five
    predict   the process

in seconds of the wall, and of the processor for whole processes. On a machine that others use, the latter with --cores=1
compares best: threads that wait for each other count as busy in torch.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
LENGTH, BATCH, WARM_UP = 128, 32, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="folder with train.txt, dev.txt and test.txt in CoNLL's form")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--texts", required=True, help='JSON lines with "text"')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=0, help="cores that every process may use; 0: all")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both")
    parser.add_argument("--peer", choices=("train", "predict"), help="run theirs in this process")
    parser.add_argument("--folder", help="of the peer's model")
    args = parser.parse_args()
    if args.peer:
        result = peer_train(args) if args.peer == "train" else peer_predict(args)
        print(json.dumps(result))
        return
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        os.environ["OMP_NUM_THREADS"] = str(args.cores)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for name, seconds in one_round(args, pathlib.Path(folder) / str(number)).items():
                times.setdefault(name, []).append(seconds)
                print(f"round {number}: {name} {seconds:.2f} s", flush=True)
    for what in ("epoch", "epoch, processor", "steps", "predict", "predict, processor"):
        pairs = zip(times[f"theirs {what}"], times[f"ours {what}"], strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        ours, theirs = (statistics.median(times[f"{side} {what}"]) for side in ("ours", "theirs"))
        spread = f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"{what:<18} ours {ours:7.2f} s  theirs {theirs:7.2f} s  ratio {statistics.median(ratios):.2f} {spread}")


def one_round(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, float]:
    """Returns the times of ours and theirs in seconds."""
    own = [sys.executable, "-m", "electramed_jax.cli"]
    settings = ["init=scratch", "init_size_from=tiny", f"vocab={args.vocab}", f"task.data={args.corpus}", "epochs=1"]
    settings += ["ner.words=file", "log_every=5", f"task.max_seq_length={LENGTH}", f"batch_size={BATCH}"]
    recipe = f"--config={ROOT}/configs/finetune_ner.py"
    workdir = f"--workdir={folder}/ours"
    settings += [f"compute_dtype={args.dtype}"]
    flags = [f"--config.{setting}" for setting in settings]
    times: dict[str, float] = {}

    def measure(what: str, command: list[str]) -> dict[str, Any]:
        times[what], times[f"{what}, processor"], result = timed(command)
        return result

    measure("ours epoch", [*own, "finetune", recipe, workdir, *flags, "--quiet"])
    entries = [json.loads(line) for line in (folder / "ours/seed-0/metrics.jsonl").read_text().splitlines()]
    entries = [entry for entry in entries if entry["split"] == "train" and "step_seconds" in entry]
    steps = [entry for entry in entries if entry["step"] > WARM_UP]
    times["ours steps"] = sum(
        entry["step_seconds"] * (entry["step"] - before["step"])
        for before, entry in zip([{"step": WARM_UP}, *steps], steps, strict=False)
    )
    peer = [sys.executable, __file__, f"--corpus={args.corpus}", f"--vocab={args.vocab}", f"--texts={args.texts}"]
    peer += [f"--folder={folder}/theirs", f"--dtype={args.dtype}"]
    times["theirs steps"] = measure("theirs epoch", [*peer, "--peer=train"])["steps"]
    output = [f"--output={folder}/ours.jsonl", f"--input={args.texts}", "--quiet"]
    measure("ours predict", [*own, "predict", f"--model={folder}/ours", *output])
    measure("theirs predict", [*peer, "--peer=predict"])
    return times


def timed(command: list[str]) -> tuple[float, float, dict[str, Any]]:
    """Returns the wall time of a process, its processor time, and the JSON that it prints."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, busy, json.loads(done.stdout or "{}")


def read_conll(path: pathlib.Path) -> list[tuple[list[str], list[str]]]:
    sentences = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line.split() for line in block.split("\n") if line.strip()]
        if lines:
            sentences.append(([line[0] for line in lines], [line[-1] for line in lines]))
    return sentences


def peer_train(args: argparse.Namespace) -> dict[str, float]:
    """Trains an epoch, scores dev and test; returns the seconds of the steps after the warm-up."""
    import seqeval.metrics
    import torch
    import transformers

    corpus = {split: read_conll(pathlib.Path(args.corpus) / f"{split}.txt") for split in ("train", "dev", "test")}
    labels = sorted({tag for _, tags in corpus["train"] for tag in tags})
    tokenizer = transformers.BertTokenizerFast(args.vocab, do_lower_case=True)
    config = transformers.ElectraConfig(
        vocab_size=len(tokenizer), embedding_size=128, hidden_size=128, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=512, num_labels=len(labels),
    )  # fmt: skip
    network = transformers.ElectraForTokenClassification._from_config(config, attn_implementation="sdpa")
    encoded = {}
    for split, sentences in corpus.items():
        rows = tokenizer(
            [words for words, _ in sentences], is_split_into_words=True, truncation=True, max_length=LENGTH
        )
        encoded[split] = []
        for number, (_, tags) in enumerate(sentences):
            words = rows.word_ids(number)
            first = [word is not None and word != before for before, word in zip([None, *words], words, strict=False)]
            row = [labels.index(tags[w]) if f else -100 for f, w in zip(first, words, strict=True)]
            encoded[split].append({"input_ids": rows["input_ids"][number], "labels": row})
    collate = transformers.DataCollatorForTokenClassification(tokenizer)
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(encoded["train"], BATCH, shuffle=True, collate_fn=collate, generator=generator)
    network.train()
    start = 0.0
    for step, batch in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = network(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    seconds = time.perf_counter() - start
    network.eval()
    for split in ("dev", "test"):
        gold, found = [], []
        for batch in torch.utils.data.DataLoader(encoded[split], BATCH, collate_fn=collate):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
                best = network(**batch).logits.argmax(-1)
            for tags, row in zip(batch["labels"].tolist(), best.tolist(), strict=True):
                gold.append([labels[tag] for tag in tags if tag != -100])
                found.append([labels[one] for tag, one in zip(tags, row, strict=True) if tag != -100])
        seqeval.metrics.f1_score(gold, found)
    network.save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)
    return {"steps": seconds}


def peer_predict(args: argparse.Namespace) -> dict[str, int]:
    """Writes the entities of each text, from windows that overlap by half."""
    import transformers

    tokenizer = transformers.BertTokenizerFast.from_pretrained(args.folder)
    network = transformers.ElectraForTokenClassification.from_pretrained(args.folder).eval()
    texts = [json.loads(line)["text"] for line in pathlib.Path(args.texts).read_text(encoding="utf-8").splitlines()]
    found, windows = predict_windows(network, tokenizer, texts)
    lines = [json.dumps({"id": number, "entities": sorted(spans)}) for number, spans in sorted(found.items())]
    pathlib.Path(args.folder, "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"windows": windows}


def predict_windows(network: Any, tokenizer: Any, texts: list[str]) -> tuple[dict[int, set[tuple[int, int]]], int]:
    """Returns the spans of the tokens with a tag by text, from windows that overlap by half, and how many there are."""
    import torch

    rows = tokenizer(
        texts, truncation=True, max_length=LENGTH, stride=LENGTH // 2, return_overflowing_tokens=True,
        return_offsets_mapping=True, return_token_type_ids=False,
    )  # fmt: skip
    order = sorted(range(len(rows["input_ids"])), key=lambda row: len(rows["input_ids"][row]))
    found: dict[int, set[tuple[int, int]]] = {}
    for begin in range(0, len(order), BATCH):
        chosen = order[begin : begin + BATCH]
        batch = tokenizer.pad({"input_ids": [rows["input_ids"][row] for row in chosen]}, return_tensors="pt")
        with torch.inference_mode():
            best = network(**batch).logits.argmax(-1).tolist()
        for row, tags in zip(chosen, best, strict=True):
            spans = [tuple(span) for span, tag in zip(rows["offset_mapping"][row], tags, strict=False) if tag]
            found.setdefault(rows["overflow_to_sample_mapping"][row], set()).update(spans)
    return found, len(order)


if __name__ == "__main__":
    main()
