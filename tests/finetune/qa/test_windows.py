from __future__ import annotations

import random

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa import windows
from electramed_jax.finetune.qa.squad import Answer, Question

WORDS = ["kinase", "inhibitor", "BCR-ABL", "β-Catenin", "(p53)", "naïve", "the", "of", "\u2003", "\n"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = str(tmp_path_factory.mktemp("vocab") / "vocab.txt")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789β"
    vocab.write_vocab(
        path,
        [*vocab.SPECIAL_TOKENS, *"()-.?", *letters, *(f"##{x}" for x in letters), "kinase", "inhibit", "##or", "the"],
    )
    return Tokenizer(path)


def random_text(rng: random.Random, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(2, most))) + " kinase"


def random_questions(count: int, most: int = 60) -> list[Question]:
    rng = random.Random(3)
    questions = []
    for number in range(count):
        context = random_text(rng, most)
        start = rng.randrange(len(context) - 6)
        while context[start].isspace():
            start += 1
        text = context[start : start + rng.randrange(1, 20)].rstrip()
        questions.append(Question(str(number), random_text(rng, 8), context, (Answer(text, start),)))
    return questions


def test_windows_are_those_of_hugging_faces_tokenizers(tokenizer):
    windowing = windows.WindowConfig(max_seq_length=96, doc_stride=20, max_query_length=60)
    questions = random_questions(60)
    found, _ = windows.make_windows(questions, tokenizer, windowing)
    for number, question in enumerate(questions):
        head = len(tokenizer.encode_batch([question.text])[0]) + 3
        tokenizer.backend.enable_truncation(
            windowing.max_seq_length,
            stride=windowing.max_seq_length - head - windowing.doc_stride,
            strategy="only_second",
        )
        first = tokenizer.backend.encode(question.text, question.context)
        theirs = [first, *first.overflowing]
        ours = [window for window in found if window.question == number]
        assert len(ours) == len(theirs)
        for window, encoding in zip(ours, theirs, strict=True):
            assert window.input_ids.tolist() == encoding.ids
            assert [int(place >= window.first) for place in range(len(encoding.ids))] == encoding.type_ids
            assert window.offsets.tolist() == [list(pair) for pair in encoding.offsets[window.first : -1]]
    assert len(found) > 2 * len(questions), "most passages need several windows"


def test_no_piece_of_a_passage_is_lost_and_one_window_has_most_context_of_it(tokenizer):
    questions = random_questions(40)
    found, _ = windows.make_windows(
        questions, tokenizer, windows.WindowConfig(max_seq_length=48, doc_stride=10, max_query_length=12)
    )
    for number, question in enumerate(questions):
        (_, offsets) = tokenizer.encode_with_offsets([question.context])[0]
        seen = [tuple(pair) for w in found if w.question == number for pair in w.offsets[w.max_context].tolist()]
        assert sorted(seen) == sorted(map(tuple, offsets.tolist()))


@pytest.mark.parametrize(
    ("pieces", "room", "stride"), [(1, 5, 3), (5, 5, 3), (6, 5, 3), (8, 5, 5), (23, 7, 2), (31, 8, 8), (100, 33, 16)]
)
def test_most_context_is_what_a_count_piece_by_piece_gives(pieces, room, stride):
    """By google-research/bert's rule as it is written."""
    begins = windows.window_starts(pieces, room, stride)
    best = []
    for piece in range(pieces):
        scores = {}
        for window, begin in enumerate(begins):
            length = min(room, pieces - begin)
            if begin <= piece < begin + length:
                scores[window] = min(piece - begin, begin + length - 1 - piece) + 0.01 * length
        best.append(max(scores, key=scores.get))
    assert windows.max_context_windows(begins, pieces, room).tolist() == best


def test_labels_cover_the_answer_and_windows_without_it_point_at_cls(tokenizer):
    questions = random_questions(200)
    found, stats = windows.make_windows(
        questions, tokenizer, windows.WindowConfig(max_seq_length=64, doc_stride=16, max_query_length=16)
    )
    widened = set()
    for window in found:
        question = questions[window.question]
        answer = question.answers[0]
        if not window.holds_answer:
            assert window.start == window.end == 0
            assert window.input_ids[0] == tokenizer.special.cls
            continue
        assert window.first <= window.start <= window.end < len(window.input_ids) - 1
        begin = window.offsets[window.start - window.first, 0]
        stop = window.offsets[window.end - window.first, 1]
        assert begin <= answer.start and answer.stop <= stop
        if (begin, stop) != (answer.start, answer.stop):
            widened.add(window.question)
            assert window.offsets[window.start - window.first, 1] > answer.start, "no piece before the answer"
            assert window.offsets[window.end - window.first, 0] < answer.stop, "no piece after the answer"
    assert stats.widened_answers == len(widened) > 0
    assert stats.answered == 200 and stats.unanswerable == []
    assert 0 < stats.windows_with_answer < stats.windows == len(found)


def test_an_answer_longer_than_the_overlap_may_be_in_no_window_and_is_counted(tokenizer):
    context = "kinase " * 100
    question = Question("long", "the?", context, (Answer(context[70:700].strip(), 70),))
    found, stats = windows.make_windows(
        [question], tokenizer, windows.WindowConfig(max_seq_length=50, doc_stride=20, max_query_length=4)
    )
    assert stats.unanswerable == ["long"] and stats.windows_with_answer == 0
    assert not any(window.holds_answer for window in found)


def test_a_long_question_loses_its_end_and_is_counted(tokenizer):
    question = Question("1", "the kinase " * 20, "kinase of the", ())
    (window,), stats = windows.make_windows([question], tokenizer, windows.WindowConfig(64, 16, 8))
    assert stats.truncated_questions == 1 and window.first == 8 + 2
    assert window.input_ids.dtype == np.int32


def test_a_passage_without_any_word_piece_has_one_empty_window(tokenizer):
    (window,), stats = windows.make_windows([Question("1", "the?", "\u200d\u00ad", (Answer("\u00ad", 1),))], tokenizer)
    assert len(window.offsets) == 0 and stats.unanswerable == ["1"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((70, 40, 64), "leaves room for 3 word pieces .*; use a max_seq_length of 75 or more"),
        ((384, 0, 64), "stride=0"),
        ((384, 8, 0), "max_query_length=0"),
    ],
)
def test_windows_that_would_lose_pieces_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        windows.WindowConfig(*values)


@pytest.mark.parametrize("max_seq_length", [75, 128, 194])
def test_short_windows_start_closer_together_so_that_no_piece_is_lost(tokenizer, max_seq_length):
    """The settings of SQuAD, 128 apart and questions of 64, in windows with less room for the passage."""
    windowing = windows.WindowConfig(max_seq_length)
    assert windowing.stride == (max_seq_length - 64 - 3) // 2
    question = Question("1", "the " * 64, "the cell " * 300, (Answer("the cell", 900),))
    made, stats = windows.make_windows([question], tokenizer, windowing)
    assert all(len(window.input_ids) <= max_seq_length for window in made)
    kept = np.concatenate([window.offsets[window.max_context] for window in made])
    (_, offsets) = tokenizer.encode_with_offsets([question.context])[0]
    assert kept[np.argsort(kept[:, 0])].tolist() == offsets.tolist()
    assert not stats.unanswerable


def test_windows_with_enough_room_start_as_far_apart_as_set():
    assert windows.WindowConfig(195).stride == windows.WindowConfig(384).stride == 128
