"""Cutting prompts to a window and putting those of like length together."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute._transformers import load_tokenizer
from prefroute.routers._token_batches import Tokens, keep_end_characters, keep_ends, padded, token_batches


def test_the_middle_is_left_out() -> None:
    assert keep_ends([1, 2, 3], 3) == [1, 2, 3]
    assert keep_ends(list(range(10)), 5) == [0, 1, 2, 8, 9]
    assert keep_ends(list(range(10)), 4) == [0, 1, 8, 9]
    assert keep_ends(list(range(20)), 12, head=6, tail=3) == [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19]


@given(st.integers(0, 80), st.integers(8, 60), st.integers(0, 4), st.integers(0, 4))
def test_what_must_stay_stays(size: int, most: int, head: int, tail: int) -> None:
    tokens = list(range(size))
    kept = keep_ends(tokens, most, head=head, tail=tail)
    assert len(kept) == min(size, most)
    assert kept == sorted(kept)
    assert kept[:head] == tokens[:head]
    assert kept[len(kept) - tail :] == tokens[size - tail :]


@given(st.text(max_size=40), st.integers(1, 30))
def test_characters_are_cut_alike(text: str, most: int) -> None:
    kept = keep_end_characters(text, most)
    assert len(kept) == min(len(text), most)
    if len(text) > most:
        assert text.startswith(kept[: most - most // 2])
        assert text.endswith(kept[most - most // 2 :])


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_every_text_is_in_one_batch_of_like_length_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    assert sorted(np.concatenate([np.empty(0, dtype=int), *batches]).tolist()) == list(range(len(lengths)))
    ordered = [lengths[place] for batch in batches for place in batch]
    assert ordered == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


@pytest.mark.parametrize("left", [False, True])
def test_gaps_are_masked(left: bool) -> None:
    tokens, mask = padded([[1, 2, 3], [4]], 9, left=left)
    assert tokens.tolist() == ([[1, 2, 3], [9, 9, 4]] if left else [[1, 2, 3], [4, 9, 9]])
    assert mask.tolist() == ([[1, 1, 1], [0, 0, 1]] if left else [[1, 1, 1], [1, 0, 0]])


def test_threads_share_a_tokenizer_whose_own_settings_stay(encoder_folder: Any) -> None:
    tokenizer = load_tokenizer(encoder_folder)
    tokens = Tokens(tokenizer, plain=True)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    texts = [f"Derive {number} theorems about tea [SEP] and [CLS]." for number in range(50)]
    expected = tokens(texts)
    assert len(expected[0]) > 3
    assert tokenizer.sep_token_id not in expected[0]
    wrong: list[int] = []

    def work() -> None:
        wrong.append(sum(tokens(texts) != expected for _ in range(20)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 8


def test_what_a_model_wants_around_a_text(encoder_folder: Any, llama_folder: Any) -> None:
    tokenizer = load_tokenizer(encoder_folder)
    assert Tokens(tokenizer, plain=True).around() == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])
    assert Tokens(load_tokenizer(llama_folder), plain=True).around() == ([], [])
