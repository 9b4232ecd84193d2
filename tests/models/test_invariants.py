"""What holds for every preset: caches, no look ahead, padding, neighbours, documents.

"Changes nothing" is tested both ways: other ids leave the outputs as they are, and no gradient
arrives at the ids' own rows of the tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder, pool
from groundup.models.encoder_decoder import EncoderDecoder
from parity.zoo import DECODERS, ENCODER_DECODERS, ENCODERS, VOCABULARY

LENGTH, SOURCE = 23, 19
UNSEEN = VOCABULARY - 1
"""An id that stands only where nobody may look."""
PIECES = {
    "at once": [LENGTH],
    "in chunks": [5, 1, 9, 1, 2, 5],
    "token by token": [1] * LENGTH,
}


def sharpened(model: nn.Module, spread: float = 0.2) -> nn.Module:
    """Larger weights than at the start of training, so that a mistake shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(params=DECODERS, ids=list(DECODERS))
def decoder(request: pytest.FixtureRequest) -> nn.Module:
    return sharpened(Decoder(DECODERS[request.param]))


@pytest.fixture(params=ENCODERS, ids=list(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    return sharpened(Encoder(ENCODERS[request.param]))


@pytest.fixture(params=ENCODER_DECODERS, ids=list(ENCODER_DECODERS))
def writer(request: pytest.FixtureRequest) -> nn.Module:
    return sharpened(EncoderDecoder(ENCODER_DECODERS[request.param]), 0.05)


def ids(rows: int, length: int) -> Tensor:
    return torch.randint(0, UNSEEN, (rows, length))


def tables(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything that is looked up by id."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and parameter.shape[0] == VOCABULARY and "head" not in name:
            yield name, parameter


def gets_no_gradient(model: nn.Module, outputs: Tensor) -> None:
    """No gradient of these outputs arrives at the id that nobody may see."""
    model.zero_grad()
    (outputs * torch.randn(outputs.shape)).sum().backward()
    found = list(tables(model))
    assert found
    for name, table in found:
        assert table.grad is not None and table.grad.any(), name
        assert not table.grad[UNSEEN].any(), name


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def in_pieces(run: Callable[..., Tensor], whole: Tensor, pieces: list[int]) -> Tensor:
    return torch.cat([run(piece) for piece in whole.split(pieces, dim=1)], dim=1)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=list(PIECES))
def test_a_decoder_through_its_cache_says_the_same(decoder: Decoder, pieces: list[int]) -> None:
    text, cache = ids(2, LENGTH), decoder.new_cache(2, LENGTH)
    found = in_pieces(lambda piece: decoder(piece, cache=cache), text, pieces)
    with torch.no_grad():
        close(found, decoder(text))
    assert cache.length == LENGTH


def test_a_decoder_goes_on_from_where_it_went_back_to(decoder: Decoder) -> None:
    text, cache = ids(1, LENGTH), decoder.new_cache(1, LENGTH)
    tails = ids(3, 6)
    with torch.no_grad():
        decoder(text, cache=cache)
        cache.truncate(cache.reachable(11))
        if cache.length < 11:  # a window has moved on
            decoder(text[:, cache.length : 11], cache=cache)
        wide = cache.expand(3)
        steps = in_pieces(lambda piece: decoder(piece, cache=wide), tails, [1, 4, 1])
        close(steps, decoder(torch.cat((text[:, :11].expand(3, -1), tails), 1))[:, 11:])
    assert cache.length == 11


def test_a_decoder_does_not_see_the_future(decoder: Decoder) -> None:
    position = int(torch.randint(1, LENGTH, ()))
    text = ids(2, LENGTH)
    changed = text.clone()
    changed[:, position:] = UNSEEN
    with torch.no_grad():
        before, after = decoder(text), decoder(changed)
    torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-6, rtol=0)
    assert (after[:, position:] != before[:, position:]).any(-1).all()
    gets_no_gradient(decoder, decoder.hidden(changed)[:, :position])


def test_a_row_never_changes_its_neighbours(decoder: Decoder) -> None:
    text = ids(3, LENGTH)
    changed = text.clone()
    changed[1] = UNSEEN
    with torch.no_grad():
        before, after = decoder(text), decoder(changed)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], atol=1e-6, rtol=0)
    gets_no_gradient(decoder, decoder.hidden(changed)[[0, 2]])


def test_documents_in_one_row_are_as_if_alone(decoder: Decoder) -> None:
    text = ids(2, LENGTH)
    lengths = ([3, 13, 7], [1, 22])
    numbers = [torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in lengths]
    documents = torch.stack(numbers).int()
    with torch.no_grad():
        packed = decoder(text, documents=documents)
        for row, sizes in enumerate(lengths):
            for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
                alone = decoder(text[row : row + 1, start:stop])
                close(packed[row, start:stop], alone[0])
        close(decoder(text, documents=torch.zeros_like(text)), decoder(text))
    text[0, 3:16] = UNSEEN
    hidden = decoder.hidden(text, documents=documents)
    gets_no_gradient(decoder, torch.cat((hidden[0, :3], hidden[0, 16:], hidden[1])))


def padded(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids and which of them are real: all, some, and one; the others are `UNSEEN`."""
    lengths = torch.tensor([length, length // 3, 1])[:rows]
    visible = torch.arange(length) < lengths[:, None]
    return ids(rows, length).masked_fill(~visible, UNSEEN), visible


def test_padding_changes_nothing_in_an_encoder(encoder: Encoder) -> None:
    text, visible = padded(3, LENGTH)
    changed = torch.where(visible, text, ids(3, LENGTH))
    with torch.no_grad():
        before, after = encoder.hidden(text, visible), encoder.hidden(changed, visible)
        assert torch.equal(before[visible], after[visible])
        short = LENGTH // 3
        alone = encoder.hidden(text[1:2, :short])
        close(before[1:2, :short], alone)
        for pooling in ("first", "mean"):
            close(pool(before, visible, pooling)[1:2], pool(alone, None, pooling))
        outputs = encoder(text, visible), encoder(changed, visible)
        if outputs[0].shape[1] == LENGTH:  # one for each token
            outputs = outputs[0][visible], outputs[1][visible]
        assert torch.equal(*outputs)
    gets_no_gradient(encoder, encoder.hidden(text, visible)[visible])


def test_a_text_of_padding_alone_is_finite_and_changes_no_other(encoder: Encoder) -> None:
    text, visible = padded(3, LENGTH)
    expected = encoder.hidden(text[:2], visible[:2])
    visible[2] = False
    hidden = encoder.hidden(text, visible)
    close(hidden[:2], expected)
    hidden.square().sum().backward()
    assert hidden.isfinite().all() and encoder.summary(hidden, visible).isfinite().all()
    for parameter in encoder.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_every_token_of_an_encoder_sees_both_sides(encoder: Encoder) -> None:
    text = ids(1, 7)
    for place in (0, 3, 6):
        changed = text.clone()
        changed[0, place] = UNSEEN
        assert (encoder.hidden(text) != encoder.hidden(changed)).any(-1).all()


def test_padding_of_a_source_changes_nothing(writer: EncoderDecoder) -> None:
    source, visible = padded(3, SOURCE)
    target = ids(3, 11)
    logits = writer(source, target, visible)
    changed = torch.where(visible, source, ids(3, SOURCE))
    assert torch.equal(writer(changed, target, visible), logits)
    short = SOURCE // 3
    close(logits[1:2], writer(source[1:2, :short], target[1:2]))
    gets_no_gradient(writer, writer.hidden(target, writer.read(source, visible)))


def test_a_source_of_padding_alone_is_finite_and_changes_no_other(writer: EncoderDecoder) -> None:
    source, visible = padded(3, SOURCE)
    target = ids(3, 11)
    expected = writer(source[:2], target[:2], visible[:2])
    visible[2] = False
    logits = writer(source, target, visible)
    close(logits[:2], expected)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in writer.parameters())


def test_a_target_sees_its_past_and_the_whole_source(writer: EncoderDecoder) -> None:
    source, target = ids(2, SOURCE), ids(2, 11)
    later = target.clone()
    later[:, 6:] = UNSEEN
    before, after = writer(source, target), writer(source, later)
    torch.testing.assert_close(after[:, :6], before[:, :6], atol=1e-6, rtol=0)
    assert (after[:, 6:] != before[:, 6:]).any(-1).all()
    gets_no_gradient(writer, writer.hidden(later, writer.read(source))[:, :6])
    for place in (0, SOURCE - 1):
        other = source.clone()
        other[:, place] = UNSEEN
        assert (writer(other, target) != before).any(-1).all()


@pytest.mark.parametrize("pieces", PIECES.values(), ids=list(PIECES))
def test_an_encoder_decoder_through_its_cache_says_the_same(
    writer: EncoderDecoder, pieces: list[int]
) -> None:
    source, visible = padded(3, SOURCE)
    target, cache = ids(3, LENGTH), writer.new_cache(3, LENGTH)
    given = writer.given(source, visible)
    found = in_pieces(lambda piece: given(piece, cache=cache), target, pieces)
    with torch.no_grad():
        close(found, writer(source, target, visible))
