"""The decoder for prompts of many images, against the library's own."""

from __future__ import annotations

import pytest
import torch

from autolabel.segment import sam2_decoder
from autolabel.segment.sam2 import encode, load_model, read_architecture
from autolabel.segment.sam2_decoder import FourMasks, ImageSide, MaskDecoder
from autolabel.segment.sam2_encoder import ImageEncoder

PROMPTS = 5

pytestmark = pytest.mark.usefixtures("one_thread", "inference")


@pytest.fixture(scope="module")
def model():
    loaded, _ = load_model(read_architecture("nano"), "nano_segmenter")
    return loaded.eval()


@pytest.fixture(scope="module")
def features(model):
    noise = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    return encode(ImageEncoder(model), noise)


def prompts(model, n: int = PROMPTS, seed: int = 1) -> torch.Tensor:
    return model.sam_prompt_encoder(points=corners(model, n, seed), boxes=None, masks=None)[0]


def side(decoder: MaskDecoder, *features) -> ImageSide:
    levels = [torch.cat([f.high_res[i] for f in features]) for i in range(2)]
    return decoder.image_side(torch.cat([f.embedding for f in features]), (levels[0], levels[1]))


def library(model, features, sparse, dense=None) -> FourMasks:
    encoder = model.sam_prompt_encoder
    if dense is None:
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
            len(sparse), -1, *features.embedding.shape[2:]
        )
    logits, iou, _, object_logit = model.sam_mask_decoder.predict_masks(
        features.embedding, encoder.get_dense_pe(), sparse, dense, len(sparse) > 1, features.high_res
    )
    return FourMasks(logits, iou, object_logit)


def assert_close(a: FourMasks, b: FourMasks) -> None:
    for name in ("logits", "iou", "object_logit"):
        expected = getattr(b, name)
        # A logit near 0 is the difference of large numbers: its error follows their size.
        size = max(1.0, float(expected.abs().mean()))
        torch.testing.assert_close(getattr(a, name), expected, rtol=1e-4, atol=1e-5 * size)


def test_one_prompt_gives_the_librarys_numbers(model, features):
    sparse = prompts(model, 1)
    decoder = MaskDecoder(model)
    assert_close(decoder(side(decoder, features[0]), None, sparse), library(model, features[0], sparse))


def test_several_prompts_give_the_librarys_numbers(model, features):
    sparse = prompts(model)
    decoder = MaskDecoder(model)
    assert_close(decoder(side(decoder, features[0]), None, sparse), library(model, features[0], sparse))


def test_prompts_of_two_images_in_one_call_are_answered_by_their_own_image(model, features):
    sparse, image_of_prompt = prompts(model), torch.tensor([0, 1, 1, 0, 1])
    decoder = MaskDecoder(model)
    together = decoder(side(decoder, *features), image_of_prompt, sparse)
    for image, one in enumerate(features):
        rows = image_of_prompt == image
        alone = library(model, one, sparse[rows])
        assert_close(FourMasks(together.logits[rows], together.iou[rows], together.object_logit[rows]), alone)


def test_masks_as_prompts_give_the_librarys_numbers(model, features):
    h, w = model.sam_prompt_encoder.mask_input_size
    earlier = torch.randn(PROMPTS, 1, h, w, generator=torch.Generator().manual_seed(2)) * 8
    dense = model.sam_prompt_encoder(points=None, boxes=None, masks=earlier)[1]
    sparse = prompts(model)
    decoder = MaskDecoder(model)
    masked = decoder.with_masks(side(decoder, features[0]), features[0].embedding, dense)
    assert_close(decoder(masked, None, sparse), library(model, features[0], sparse, dense))


def corners(model, n: int = PROMPTS, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed)) * model.image_size
    return places.sort(dim=1).values, torch.tensor([[2, 3]] * n)


def test_prompts_are_embedded_in_float32_under_autocast_too(model):
    h, w = model.sam_prompt_encoder.mask_input_size
    asked = corners(model), torch.randn(PROMPTS, 1, h, w, generator=torch.Generator().manual_seed(2))
    decoder = MaskDecoder(model)
    expected = decoder.embed(*asked)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder.embed(*asked)
        rounded, _ = model.sam_prompt_encoder(points=asked[0], boxes=None, masks=None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert (rounded - expected[0]).abs().max() > 0.05  # the library's; a code is a sine or a cosine


def test_a_place_is_coded_the_same_as_a_prompt_and_as_a_place_of_the_image(model):
    decoder, (_, w) = MaskDecoder(model), model.sam_prompt_encoder.image_embedding_size
    row, column = 5, 17
    stride = model.image_size / w
    centre = torch.tensor([[[(column + 0.5) * stride - 0.5, (row + 0.5) * stride - 0.5]]])
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _ = decoder.embed((centre, torch.tensor([[1]])), None)
    kind = model.sam_prompt_encoder.point_embeddings[1].weight[0]
    torch.testing.assert_close(tokens[0, 0] - kind, decoder._pe_1KC[0, row * w + column], rtol=0, atol=1e-4)


def products_as_on_cuda(monkeypatch) -> None:
    """Of bfloat16 factors with float32 results, which a CPU does not have."""

    def product(a, b, out_dtype):
        assert (a.dtype, b.dtype, out_dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        return a.float() @ b.float()

    monkeypatch.setattr(sam2_decoder, "_type_of_scored", sam2_decoder.type_of_products)
    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(torch, "bmm", product)


@pytest.mark.parametrize("several_images", [False, True])
@pytest.mark.parametrize("on_cuda", [False, True])
def test_bfloat16_is_nearer_to_float32_than_the_librarys(model, features, monkeypatch, on_cuda, several_images):
    decoder, points = MaskDecoder(model), corners(model)
    of_image = torch.zeros(PROMPTS, dtype=torch.int64) if several_images else None
    exact = decoder(side(decoder, features[0]), None, decoder.embed(points, None)[0])
    if on_cuda:
        products_as_on_cuda(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        ours = decoder(side(decoder, features[0]), of_image, decoder.embed(points, None)[0])
        theirs = library(model, features[0], prompts(model))
    for name, times in (("logits", 2), ("iou", 1), ("object_logit", 1)):
        truth = getattr(exact, name)
        near, far = ((getattr(some, name) - truth).abs().mean() for some in (ours, theirs))
        assert getattr(ours, name).dtype == torch.float32
        assert near * times < far


def test_a_decoder_that_is_not_sam_2s_is_refused(model):
    class Other:
        use_high_res_features = False

    class Model:
        sam_mask_decoder = Other()

    with pytest.raises(ValueError, match="only the decoder of SAM 2"):
        MaskDecoder(Model())
