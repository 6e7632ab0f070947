"""transformers with torch opens the exported folders and computes the same logits."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import quick

from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf import convert
from electramed_jax.model import masking
from electramed_jax.pretrain.state import merge_params

pytestmark = pytest.mark.slow  # imports torch and runs models

WANTED = "the parity tests compare with transformers on torch: install electramed_jax[parity]"
torch = pytest.importorskip("torch", reason=WANTED)
transformers = pytest.importorskip("transformers", reason=WANTED)

TOLERANCE = 1e-4  # largest allowed difference of a float32 logit
# (tying, embedding_size, hidden_size, generator_hidden_size): projections in both, one or none
PAIRS = [
    ("embeddings", 12, 16, 8),
    ("embeddings", 16, 16, 8),
    ("embeddings", 8, 16, 8),
    ("none", 12, 16, 8),
    ("none", 16, 16, 16),
    ("all", 12, 16, 8),
    ("all", 16, 16, 8),
    ("gradient_disentangled", 12, 16, 8),
    ("gradient_disentangled", 16, 16, 16),
]
TEXTS = [
    ("Aspirin inhibits fever.", None),
    ("The fever, in the [MASK] of aspirin.", "Zebras"),
    ("A", "the inhibit of a fever in a"),
    ("Fever", None),
]
CLASSES = {"discriminator": "AutoModelForPreTraining", "generator": "AutoModelForMaskedLM"}


def export(pair, folder, network: str, **casing: bool):
    convert.export_networks(
        {network: str(folder)},
        pair.params,
        pair.model,
        pair.vocabulary,
        **{"lower_case": True} | casing,
        card_data=pair.card_data,
    )
    return folder


def open_model(folder, network: str):
    """The torch model, after a check that no tensor is missing or unexpected."""
    auto = getattr(transformers, CLASSES[network])
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert {what: list(names) for what, names in report.items() if names} == {}
    return model.eval()


def their_logits(model, ids, mask, token_types) -> np.ndarray:
    tensors = (torch.tensor(array, dtype=torch.long) for array in (ids, mask, token_types))
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        return model(**dict(zip(names, tensors, strict=True))).logits.numpy()


def our_logits(pair, ids: np.ndarray, network: str) -> np.ndarray:
    def compute(params, ids_BT):
        model = merge_params(pair.config, params)
        structure = masking.packed_segments(ids_BT, pair.config.data.special)
        if network == "discriminator":
            return model.discriminator_logits(ids_BT, structure)
        everywhere_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1])[None], ids_BT.shape)
        masked = masking.MaskedTokens(everywhere_BT, jnp.ones_like(everywhere_BT), ids_BT, ids_BT)
        return model.generator_logits(masked, structure)[..., : pair.model.vocab_size]

    return np.asarray(quick.jit(compute)(pair.params, jnp.asarray(ids, jnp.int32)))


def random_rows(pair, seed: int, rows: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, attention mask, token types), padded: `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`."""
    rng = np.random.default_rng(seed)
    special, T = pair.config.data.special, pair.config.data.max_seq_length
    words = [i for i in range(pair.model.vocab_size) if i not in (special.pad, special.cls, special.sep)]
    ids = np.full((rows, T), special.pad)
    mask, token_types = np.zeros((rows, T), int), np.zeros((rows, T), int)
    for row in range(rows):
        a, b = rng.integers(1, T // 2 - 2, 2)
        first = [special.cls, *rng.choice(words, a), special.sep]
        second = [*rng.choice(words, b), special.sep] if row % 2 else []
        length = len(first) + len(second)
        ids[row, :length] = first + second
        mask[row, :length] = 1
        token_types[row, len(first) : length] = 1
    return ids, mask, token_types


@pytest.mark.parametrize("tying, embedding_size, hidden_size, generator_hidden_size", PAIRS)
def test_logits_equal_those_of_transformers(
    make_pair, tmp_path, tying, embedding_size, hidden_size, generator_hidden_size
):
    pair = make_pair(
        seed := PAIRS.index((tying, embedding_size, hidden_size, generator_hidden_size)),
        tying=tying,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        generator_hidden_size=generator_hidden_size,
    )
    ids, mask, token_types = random_rows(pair, seed)
    for network in CLASSES:
        model = open_model(export(pair, tmp_path / network, network), network)
        theirs = their_logits(model, ids, mask, token_types)[mask == 1]
        ours = our_logits(pair, ids, network)[mask == 1]
        assert np.ptp(theirs) > 0.5, "logits that hardly differ would prove nothing"
        difference = np.abs(ours - theirs).max()
        print(f"{network}: logits differ by {difference:.1e} at most")
        assert difference < TOLERANCE, network


def test_text_gives_the_same_logits_from_tokenizer_to_model(make_pair, tmp_path):
    pair = make_pair()
    folder = export(pair, tmp_path, "discriminator")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(*zip(*[(a, b or "") for a, b in TEXTS[1:3]], strict=True), padding=True)
    ids, mask = np.array(batch["input_ids"]), np.array(batch["attention_mask"])
    theirs = their_logits(open_model(folder, "discriminator"), ids, mask, batch["token_type_ids"])
    ours = our_logits(pair, ids, "discriminator")
    np.testing.assert_allclose(ours[mask == 1], theirs[mask == 1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("lower_case", "keep_accents"), [(True, False), (True, True), (False, False)])
def test_auto_tokenizer_gives_our_ids_and_token_types(make_pair, tmp_path, lower_case, keep_accents):
    pair = make_pair()
    export(pair, tmp_path, "generator", lower_case=lower_case, keep_accents=keep_accents)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (
        theirs.backend_tokenizer.normalizer.normalize_str("É")
        == {(0, 0): "É", (1, 0): "e", (1, 1): "é"}[lower_case, keep_accents]
    )
    ours = Tokenizer(str(tmp_path / "vocab.txt"), lower_case, keep_accents)
    special = pair.config.data.special
    for first, second in (pair for pair in TEXTS if "[MASK]" not in pair[0]):
        a = ours.encode_batch([first])[0].tolist()
        b = [*ours.encode_batch([second])[0].tolist(), special.sep] if second else []
        encoded = theirs(first, second)
        assert encoded["input_ids"] == [special.cls, *a, special.sep, *b]
        assert encoded["token_type_ids"] == [0] * (len(a) + 2) + [1] * len(b)
    assert theirs("the [MASK]")["input_ids"][2] == special.mask


def test_auto_tokenizer_has_the_special_tokens_and_the_longest_row(make_pair, tmp_path):
    pair = make_pair()
    tokenizer = transformers.AutoTokenizer.from_pretrained(export(pair, tmp_path, "discriminator"))
    special = pair.config.data.special
    assert tokenizer.pad_token_id == special.pad
    assert tokenizer.unk_token_id == special.unk
    assert tokenizer.cls_token_id == special.cls
    assert tokenizer.sep_token_id == special.sep
    assert tokenizer.mask_token_id == special.mask
    assert len(tokenizer) == pair.model.vocab_size
    cut = tokenizer("a " * 100, truncation=True)["input_ids"]
    assert len(cut) == pair.model.max_positions


def test_auto_model_opens_the_discriminator_without_missing_tensors(make_pair, tmp_path):
    folder = export(make_pair(), tmp_path, "discriminator")
    _, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    unexpected = report["unexpected_keys"]
    assert all(name.startswith("discriminator_predictions.") for name in unexpected)


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_a_folder_that_transformers_saved_is_imported_and_computes_the_same(make_pair, tmp_path, network):
    pair = make_pair()
    model = open_model(export(pair, tmp_path / "ours", network), network)
    transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "theirs")
    imported = convert.import_folder(str(tmp_path / "theirs"))
    assert imported.vocabulary == pair.vocabulary
    before, after = named_leaves(pair.params), named_leaves(imported.params)
    for name, leaf in after.items():
        real = pair.model.vocab_size if name.endswith(("/word", "output_bias")) else len(leaf)
        np.testing.assert_array_equal(leaf[:real], before[name][:real], err_msg=name)


@pytest.mark.parametrize("network", ["discriminator", "generator"])
@pytest.mark.parametrize("form", ["several files", "torch", "torch, in half precision", "the encoder alone"])
def test_weights_saved_by_transformers_or_torch_are_read_back(make_pair, tmp_path, network, form):
    pair = make_pair()
    model = open_model(export(pair, tmp_path / "ours", network), network)
    folder = tmp_path / "theirs"
    saved = model.electra if form == "the encoder alone" else model
    saved.save_pretrained(folder, max_shard_size="4KB" if form == "several files" else "1GB")
    if form.startswith("torch"):
        (folder / "model.safetensors").unlink()
        tensors = (model.bfloat16() if "half" in form else model).state_dict()
        torch.save(tensors, folder / "pytorch_model.bin")
    if form == "several files":
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    before = named_leaves(convert.import_folder(str(tmp_path / "ours")).params)
    after = named_leaves(convert.import_folder(str(folder), allow_headless=form == "the encoder alone").params)
    if form != "the encoder alone":
        assert set(after) == set(before)
    elif network == "discriminator":
        assert set(before) - set(after) == {name for name in before if "/head/" in name}
    for name, leaf in after.items():
        kept = before[name.replace("discriminator", network)]
        np.testing.assert_allclose(leaf, kept, rtol=1e-2 if "half" in form else 0, err_msg=name)
