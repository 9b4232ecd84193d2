"""BERT's adapter: weights both ways, older files, refusals by name."""

from __future__ import annotations

import pytest
import torch
import transformers

from groundup.config import UserError
from groundup.models.adapters.bert import (
    drop_redundant,
    from_hf_config,
    from_hf_state,
    to_hf_config,
    to_hf_state,
)
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import modernbert
from parity.zoo import ENCODERS

HEADS = {
    "BertModel": "bert",
    "BertForMaskedLM": "bert-masked",
    "BertForSequenceClassification": "bert-sequence",
    "BertForTokenClassification": "bert-token",
}


def pair(name: str) -> tuple[Encoder, torch.nn.Module]:
    """transformers' model with random weights, and ours with the same."""
    config = ENCODERS[HEADS[name]]
    cls = getattr(transformers, name)
    theirs = cls(transformers.BertConfig(**to_hf_config(config))).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = Encoder(config).eval()
    ours.load_state_dict(from_hf_state(config, theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("name", HEADS)
def test_weights_go_there_and_back(name: str) -> None:
    ours, theirs = pair(name)
    exported = to_hf_state(ours.config, ours.state_dict())
    missing, unexpected = theirs.load_state_dict(exported, strict=False)
    assert not unexpected
    assert all(".decoder." in key for key in missing)  # tied to what is there
    back = from_hf_state(ours.config, exported)
    assert back.keys() == ours.state_dict().keys()
    for key, tensor in ours.state_dict().items():
        assert torch.equal(back[key], tensor)
    assert from_hf_config(to_hf_config(ours.config)) == ours.config


def test_a_config_of_transformers_reads_as_ours() -> None:
    theirs = transformers.BertConfig(hidden_size=66, num_attention_heads=6, num_hidden_layers=2)
    config = from_hf_config(theirs.to_dict() | {"architectures": ["BertForTokenClassification"]})
    assert config.attention.head_width == 11 and config.head is not None
    assert config.head.num_classes == 2 and config.head.dropout == 0.1
    assert not config.pooler


def test_old_files_and_bodies_with_other_heads_load() -> None:
    config = ENCODERS["bert"]
    state = to_hf_state(config, Encoder(config).state_dict())
    old = {
        "bert." + key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for key, value in state.items()
    }
    old |= {"bert.embeddings.position_ids": torch.arange(53), "cls.predictions.bias": torch.ones(9)}
    assert drop_redundant(config, old).keys() == state.keys()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "roberta"}, "roberta"),
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "mish"}, "mish"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(changes: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        from_hf_config(to_hf_config(ENCODERS["bert"]) | changes)


def test_a_model_that_bert_is_not_is_not_exported() -> None:
    with pytest.raises(UserError, match="bert needs attention.windows"):
        to_hf_config(modernbert(vocab_size=9, width=8, num_heads=2, num_layers=1))
    with pytest.raises(UserError, match="unexpected tensor 'bert.x.weight'"):
        from_hf_state(ENCODERS["bert-masked"], {"x.weight": torch.ones(1)})
