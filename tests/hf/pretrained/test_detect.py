"""Verdicts and proposals of a pre-trained pair equal those of transformers; texts of any length."""

from __future__ import annotations

import numpy as np
import pytest
import saved_run

from electramed_jax import cli
from electramed_jax.hf import convert
from electramed_jax.hf.format.mapping import NETWORKS
from electramed_jax.hf.pretrained import detect
from electramed_jax.hf.pretrained.pair import load_pair

pytestmark = pytest.mark.slow

TEXT = "Aspirin inhibits fever in the rat, and fever."
FEVER, LAST = (17, 22), (39, 44)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_pair):
    """Returns the folder of both networks, and of each."""
    pair, root = make_pair(3), tmp_path_factory.mktemp("pair")
    paths = {network: str(root / network) for network in NETWORKS}
    convert.export_networks(paths, pair.params, pair.model, pair.vocabulary, lower_case=True, card_data=pair.card_data)
    return paths | {"both": str(root)}


@pytest.fixture(scope="module")
def predictors(folders):
    return {name: detect.PairPredictor(load_pair(path)) for name, path in folders.items()}


def pieces(predictor, text: str) -> list[int]:
    special = predictor.pair.tokenizer.special
    return [special.cls, *predictor.pair.tokenizer.encode_batch([text])[0].tolist(), special.sep]


def test_the_verdict_of_a_word_is_the_largest_of_its_pieces_in_transformers(folders, predictors):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.ElectraForPreTraining.from_pretrained(folders["discriminator"]).eval()
    text = "Aspirin inhibits fever."
    ids = pieces(predictors["both"], text)
    with torch.no_grad():
        wanted = torch.sigmoid(model(torch.tensor([ids])).logits)[0, 1:-1].numpy()
    tokens = [predictors["both"].pair.tokenizer.tokens[number] for number in ids[1:-1]]
    starts = [place for place, token in enumerate(tokens) if not token.startswith("##")]
    for name in ("both", "discriminator"):
        (words,) = predictors[name].words([text])
        assert [text[word.start : word.stop] for word in words] == ["Aspirin", "inhibits", "fever", "."]
        found = [word.replaced_probability for word in words]
        np.testing.assert_allclose(found, np.maximum.reduceat(wanted, starts), atol=1e-5)


def test_the_proposals_for_a_masked_word_are_those_of_transformers(folders, predictors):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.ElectraForMaskedLM.from_pretrained(folders["generator"]).eval()
    special, tokens = predictors["both"].pair.tokenizer.special, predictors["both"].pair.tokenizer.tokens
    before, between = pieces(predictors["both"], TEXT[: FEVER[0]])[:-1], pieces(predictors["both"], "in the rat")[1:-1]
    text = "Aspirin inhibits fever in the rat"
    with torch.no_grad():
        logits = model(torch.tensor([[*before, special.mask, *between, special.sep]])).logits[0, len(before)]
    best = torch.softmax(logits, -1).topk(detect.TOP_K)
    for name in ("both", "generator"):
        (words,) = predictors[name].words([text], [[FEVER]])
        masked = next(word for word in words if word.proposals)
        assert (masked.start, masked.stop) == FEVER
        assert [one.token for one in masked.proposals] == [tokens[number] for number in best.indices]
        np.testing.assert_allclose([one.probability for one in masked.proposals], best.values, atol=1e-5)
        assert (masked.replaced_probability is None) == (name == "generator")


def test_the_discriminator_reads_the_best_proposal_in_place_of_a_mask(folders, predictors):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.ElectraForPreTraining.from_pretrained(folders["discriminator"]).eval()
    text = "aspirin fever"
    (words,) = predictors["both"].words([text], [[(8, 13)]])
    ids = pieces(predictors["both"], "aspirin")
    ids.insert(-1, predictors["both"].pair.tokenizer.tokens.index(words[1].proposals[0].token))
    with torch.no_grad():
        wanted = torch.sigmoid(model(torch.tensor([ids])).logits)[0, 1:-1].numpy()
    np.testing.assert_allclose([word.replaced_probability for word in words], wanted, atol=1e-5)


def test_each_word_of_a_long_text_is_predicted_once_and_masks_are_at_their_words(predictors):
    long = f"{TEXT} " * 20
    shift = len(TEXT) + 1
    spans = [tuple(place + number * shift for place in LAST) for number in (0, 7, 19)]
    (words, empty) = predictors["both"].words([long, "  \n"], [spans, []])
    assert empty == []
    assert [(word.start, word.stop) for word in words if word.proposals] == spans
    assert "".join(long[word.start : word.stop] for word in words) == "".join(long.split())


def test_a_workdir_gives_the_predictions_of_its_export(tmp_path):
    saved_run.save(saved_run.pack(tmp_path), tmp_path / "run")
    assert cli.main(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'hf'}"]) == 0
    found = [
        detect.PairPredictor(load_pair(str(tmp_path / name))).words(["aspirin binds fever"], [[(8, 13)]])[0]
        for name in ("run", "hf")
    ]
    assert [word.proposals for word in found[0]] == [word.proposals for word in found[1]]
    assert [word[:3] for word in found[0]] == [word[:3] for word in found[1]]
