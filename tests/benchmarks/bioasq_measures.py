"""Compares strict accuracy, lenient accuracy, MRR and the F-measure of lists with the Java program of the organizers.

    python tests/benchmarks/bioasq_measures.py --classpath=EVALUATION.jar:commons-cli.jar:gson.jar GOLDEN.json...

For each golden file it makes random submissions (right and wrong answers, synonyms, other capitals, stray white space,
fewer than five answers, none; items twice), lets the organizers' `evaluation.EvaluatorTask1b -phaseB -e 5` and
`finetune.qa.bioasq` score each, and prints for how many all values agree. The program and its libraries
are at github.com/BioASQ/Evaluation-Measures, flat/BioASQEvaluation/dist; it needs Java.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import subprocess
import tempfile

from electramed_jax.finetune.qa import bioasq, squad

MEASURES = {
    bioasq.FACTOID: {
        "Factoid Strict Acc": "strict_accuracy",
        "Factoid Lenient Acc": "lenient_accuracy",
        "Factoid MRR": "mrr",
    },
    bioasq.LIST: {"List Prec": "precision", "List Rec": "recall", "List F1": "f1"},
}


def random_lists(rng: random.Random, gold: dict[str, list[set[str]]]) -> dict[str, list[str]]:
    """Returns items of any quality for every question; some twice, or under two synonyms."""
    others = sorted(text for items in gold.values() for item in items for text in item)
    answers = {}
    for number, items in gold.items():
        offered = rng.sample(others, rng.randrange(5))
        for item in items:
            offered += rng.choices(sorted(item), k=rng.choice([0, 1, 1, 2]))
        rng.shuffle(offered)
        answers[number] = [rng.choice([text, text.upper(), text.lower()]) for text in offered]
    return answers


def random_answers(rng: random.Random, gold: dict[str, set[str]]) -> dict[str, list[str]]:
    """Returns answers of any quality to every question."""
    others = sorted(text for texts in gold.values() for text in texts)
    skill = rng.random()
    answers = {}
    for number, texts in gold.items():
        offered = rng.sample(others, rng.randrange(5))
        if rng.random() < skill:
            text = rng.choice(sorted(texts))
            text = rng.choice([text, text.upper(), text.lower(), text + " ", text.rstrip(".")])
            offered.insert(rng.randrange(len(offered) + 1), text)
        answers[number] = offered
    return answers


def official(classpath: str, golden: pathlib.Path, submission: pathlib.Path, kind: str) -> dict[str, float]:
    """Returns the output of the organizers' program, in percent."""
    command = ["java", "-cp", classpath, "evaluation.EvaluatorTask1b", "-phaseB", "-e", "5"]
    done = subprocess.run(
        [*command, str(golden), str(submission), "-verbose"], capture_output=True, text=True, check=True, timeout=60
    )
    printed = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    return {ours: 100 * float(printed[theirs]) for theirs, ours in MEASURES[kind].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", nargs="+")
    parser.add_argument("--classpath", required=True)
    parser.add_argument(
        "--submissions", type=int, default=20, help="random submissions for each golden file (default 20)"
    )
    arguments = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path, only = pathlib.Path(folder) / "submission.json", pathlib.Path(folder) / "golden.json"
        for golden in arguments.golden:
            value = squad.load_json(golden)
            for kind in MEASURES:
                asked = bioasq.parse_factoids(golden, value, kind)
                # The program needs an answer to every question of the golden file, of any type.
                questions = [question for question in value["questions"] if question["type"] == kind]
                only.write_text(json.dumps({"questions": questions}), encoding="utf-8")
                equal = 0
                for _ in range(arguments.submissions):
                    if kind == bioasq.LIST:
                        answers = random_lists(rng, bioasq.gold_items(asked))
                        ours = bioasq.list_scores(bioasq.gold_items(asked), answers)
                    else:
                        answers = random_answers(rng, bioasq.gold_answers(asked))
                        ours = bioasq.factoid_scores(bioasq.gold_answers(asked), answers)
                    path.write_text(json.dumps(bioasq.to_submission(answers, kind)), encoding="utf-8")
                    theirs = official(arguments.classpath, only, path, kind)
                    equal += all(abs(ours[name] - theirs[name]) < 1e-9 for name in ours)
                name = pathlib.Path(golden).name
                print(f"{name}: {len(asked)} {kind} questions, {equal} of {arguments.submissions} submissions equal")


if __name__ == "__main__":
    main()
