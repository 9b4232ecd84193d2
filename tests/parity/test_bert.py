"""Our encoders against transformers' BERT: outputs, gradients, padding and weights both ways."""

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
from groundup.models.encoder_config import EncoderConfig, HeadConfig, bert, modernbert

VOCABULARY, LENGTH = 131, 37
HEADS = {
    "BertModel": None,
    "BertForMaskedLM": HeadConfig(kind="masked"),
    "BertForSequenceClassification": HeadConfig(kind="sequence", num_classes=5),
    "BertForTokenClassification": HeadConfig(kind="token", num_classes=3),
}


def tiny(head: HeadConfig | None) -> EncoderConfig:
    return bert(
        vocab_size=VOCABULARY,
        width=45,
        num_layers=3,
        num_heads=5,
        context_length=53,
        feed_forward_width=70,
        head=head,
    )


def pair(name: str) -> tuple[Encoder, torch.nn.Module]:
    """transformers' model with random weights, and ours with the same."""
    config = tiny(HEADS[name])
    cls = getattr(transformers, name)
    theirs = cls(transformers.BertConfig(**to_hf_config(config))).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = Encoder(config).eval()
    ours.load_state_dict(from_hf_state(config, theirs.state_dict()))
    return ours, theirs


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # transformers gives the padding id, 0, no gradient.
    ids = torch.randint(1, VOCABULARY, (3, LENGTH))
    lengths = torch.tensor([LENGTH, 11, 1])
    visible = torch.arange(LENGTH) < lengths[:, None]
    return ids, visible, torch.randint(0, 2, (3, LENGTH))


@pytest.mark.parametrize("name", HEADS)
def test_outputs_and_gradients_equal_those_of_transformers(name: str) -> None:
    ours, theirs = pair(name)
    ids, visible, types = batch()
    found = theirs(ids, attention_mask=visible.long(), token_type_ids=types)
    expected = found.last_hidden_state if name == "BertModel" else found.logits
    logits = ours(ids, visible, types)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    if name == "BertModel":
        summary = ours.summary(ours.hidden(ids, visible, types), visible)
        torch.testing.assert_close(summary, found.pooler_output, atol=1e-5, rtol=1e-5)
        logits, expected = (
            torch.cat((logits.flatten(), summary.flatten())),
            torch.cat((expected.flatten(), found.pooler_output.flatten())),
        )
    weights = torch.randn_like(logits)
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {k: p.grad for k, p in theirs.named_parameters() if p.grad is not None}
    for key, gradient in from_hf_state(ours.config, gradients).items():
        mine = ours.get_parameter(key).grad
        assert mine is not None, key
        scale = gradient.abs().max().clamp(min=1)
        assert (mine - gradient).abs().max() / scale < 1e-5, key


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
    config = tiny(None)
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
        from_hf_config(to_hf_config(tiny(None)) | changes)


def test_a_model_that_bert_is_not_is_not_exported() -> None:
    with pytest.raises(UserError, match="bert needs attention.windows"):
        to_hf_config(modernbert(vocab_size=9, width=8, num_heads=2, num_layers=1))
    with pytest.raises(UserError, match="unexpected tensor 'bert.x.weight'"):
        from_hf_state(tiny(HeadConfig(kind="masked")), {"x.weight": torch.ones(1)})
