"""The decoder for prompts of many images, against the library's own."""

from __future__ import annotations

import pytest
import torch

from autolabel.segment.sam2 import encode, load_model, read_architecture
from autolabel.segment.sam2_decoder import Decoded, ImageSide, MaskDecoder
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
    corners = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed)) * model.image_size
    labels = torch.tensor([[2, 3]] * n)
    return model.sam_prompt_encoder(points=(corners.sort(dim=1).values, labels), boxes=None, masks=None)[0]


def side(decoder: MaskDecoder, *features) -> ImageSide:
    levels = [torch.cat([f.high_res[i] for f in features]) for i in range(2)]
    return decoder.image_side(torch.cat([f.embedding for f in features]), (levels[0], levels[1]))


def library(model, features, sparse, dense=None) -> Decoded:
    encoder = model.sam_prompt_encoder
    if dense is None:
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
            len(sparse), -1, *features.embedding.shape[2:]
        )
    logits, iou, _, object_logit = model.sam_mask_decoder.predict_masks(
        features.embedding, encoder.get_dense_pe(), sparse, dense, len(sparse) > 1, features.high_res
    )
    return Decoded(logits, iou, object_logit)


def assert_close(a: Decoded, b: Decoded) -> None:
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
        assert_close(Decoded(together.logits[rows], together.iou[rows], together.object_logit[rows]), alone)


def test_masks_as_prompts_give_the_librarys_numbers(model, features):
    h, w = model.sam_prompt_encoder.mask_input_size
    earlier = torch.randn(PROMPTS, 1, h, w, generator=torch.Generator().manual_seed(2)) * 8
    dense = model.sam_prompt_encoder(points=None, boxes=None, masks=earlier)[1]
    sparse = prompts(model)
    decoder = MaskDecoder(model)
    masked = decoder.with_masks(side(decoder, features[0]), features[0].embedding, dense)
    assert_close(decoder(masked, None, sparse), library(model, features[0], sparse, dense))


def test_a_decoder_that_is_not_sam_2s_is_refused(model):
    class Other:
        use_high_res_features = False

    class Model:
        sam_mask_decoder = Other()

    with pytest.raises(ValueError, match="only the decoder of SAM 2"):
        MaskDecoder(Model())
