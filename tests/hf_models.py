"""Small models of the Hugging Face library with random weights, written to folders as a person would have them.

Built from nothing but numbers: no download. Weights are scaled so that scores and masks spread.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

COCO_LIKE = {0: "person", 1: "N/A", 2: "car", 3: "dog"}
WORDS = ("yellow", "forklift", "person", "worker", "a", "red", "car")


def needs_transformers() -> None:
    """Skip the module that calls this where the extra is not installed."""
    pytest.importorskip("transformers", reason="the extra `hf` is not installed", exc_type=ImportError)


def saved(folder: Path, *parts: object) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def seeded(make, seed: int = 0):
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def small_resnet():
    from transformers import RTDetrResNetConfig

    return RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip


def rt_detr_v2(folder: Path) -> str:
    from transformers import RTDetrImageProcessor, RTDetrV2Config, RTDetrV2ForObjectDetection

    config = RTDetrV2Config(
        backbone_config=small_resnet(), encoder_hidden_dim=32, encoder_in_channels=[16, 32, 64], encoder_ffn_dim=32,
        encoder_attention_heads=2, d_model=32, num_queries=30, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=32,
        decoder_layers=2, decoder_attention_heads=2, num_labels=len(COCO_LIKE), id2label=COCO_LIKE,
        label2id={name: i for i, name in COCO_LIKE.items()},
    )  # fmt: skip
    model = seeded(lambda: RTDetrV2ForObjectDetection(config))
    louder(model, "class_embed")
    return saved(folder, model, RTDetrImageProcessor(size={"height": 64, "width": 64}))


def detr(folder: Path) -> str:
    """The first DETR: softmax over classes, pictures of any shape."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"])  # fmt: skip
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=32,
        num_queries=20, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2, id2label=COCO_LIKE,
        label2id={name: i for i, name in COCO_LIKE.items()},
    )  # fmt: skip
    model = seeded(lambda: DetrForObjectDetection(config))
    louder(model, "class_labels_classifier")
    return saved(folder, model, DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}))


def grounding_dino(folder: Path) -> str:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SwinConfig,
    )

    tokenizer = bert_tokenizer(folder)
    swin = SwinConfig(
        image_size=128, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=text, d_model=64, num_queries=30, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=32,
        disable_custom_kernels=True,
    )  # fmt: skip
    model = seeded(lambda: GroundingDinoForObjectDetection(config))
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    return saved(folder, model, processor, tokenizer)


def owlv2(folder: Path) -> str:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

    tokenizer = clip_tokenizer(folder)
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 16,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 64, "patch_size": 16}  # fmt: skip
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    model = seeded(lambda: Owlv2ForObjectDetection(config))
    processor = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    return saved(folder, model, processor, tokenizer)


def louder(model, name: str) -> None:
    """Larger weights and no bias in the layers called so: every score has its say."""
    import torch

    with torch.no_grad():
        for where, layer in model.named_modules():
            if name in where and isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
                layer.bias.zero_()


def bert_tokenizer(folder: Path):
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS, "##s"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def clip_tokenizer(folder: Path):
    """Single letters as tokens; those of CLIP end a word with `</w>`."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", "<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], pad_token="!")


def edit_config(folder: str, **changes: object) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sam1(folder: Path) -> str:
    from transformers import SamConfig, SamImageProcessor, SamModel

    config = SamConfig(
        vision_config={"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 16,
                       "mlp_dim": 32, "initializer_range": 0.1},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )  # fmt: skip
    model = seeded(lambda: SamModel(config))
    louder(model, "output_hypernetworks_mlps")
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return saved(folder, model, processor)


def sam2_nano(folder: Path) -> str:
    """The nano segmenter of the package, its tensors renamed to what transformers calls them."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    from autolabel.segment.sam2 import load_model, read_architecture

    model = Sam2Model(
        Sam2Config(
            vision_config={
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model", "hidden_size": 32, "image_size": [512, 512],
                    "window_positional_embedding_background_size": [8, 8], "blocks_per_stage": [1, 2, 3, 1],
                    "embed_dim_per_stage": [32, 64, 128, 256], "num_attention_heads_per_stage": [1, 2, 4, 8],
                    "window_size_per_stage": [8, 4, 16, 8], "global_attention_blocks": [4, 5],
                },
                "backbone_channel_list": [256, 128, 64, 32], "fpn_hidden_size": 128, "fpn_top_down_levels": [0, 1, 2, 3],
                "backbone_feature_sizes": [[128, 128], [64, 64], [32, 32]],
            },
            prompt_encoder_config={"hidden_size": 128, "image_size": 512},
            mask_decoder_config={"hidden_size": 128},
        )
    )  # fmt: skip
    own, _ = load_model(read_architecture("nano"), "nano_segmenter")
    model.load_state_dict(as_transformers_names(own.state_dict()))
    processor = Sam2ImageProcessor(size={"height": 512, "width": 512}, mask_size={"height": 128, "width": 128})
    return saved(folder, model.eval(), processor)


RENAMED = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.2\.", r"\1.proj_out."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
)


def as_transformers_names(state):
    """A state of sam2 under the names of transformers; what only video needs is left out."""
    import torch

    renamed = {}
    for name, value in state.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    points = [renamed.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    renamed["prompt_encoder.point_embed.weight"] = torch.cat(points)
    place = "shared_embedding.positional_embedding"
    renamed[f"shared_image_{place.removeprefix('shared_')}"] = renamed[f"prompt_encoder.{place}"]
    video = ("maskmem", "mask_downsample", "memory_", "no_mem_pos", "obj_ptr", "no_obj")
    return {name: value for name, value in renamed.items() if not name.startswith(video)}


def clip(folder: Path) -> str:
    from transformers import CLIPConfig, CLIPModel

    tokenizer = clip_tokenizer(folder)
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    return saved(folder, seeded(lambda: CLIPModel(config)), tokenizer)


def sam3_config():
    from transformers import Sam3Config

    text = {"model_type": "clip_text_model", "vocab_size": 55, "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 16, "max_position_embeddings": 32,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
    backbone = {"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
                "num_attention_heads": 2, "image_size": 112, "patch_size": 14, "window_size": 4,
                "global_attn_indexes": [1], "pretrain_image_size": 56, "initializer_range": 0.1}  # fmt: skip
    small = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32, "num_layers": 1}
    return Sam3Config(
        vision_config={"backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]},
        text_config=text, geometry_encoder_config=small, detr_encoder_config=small,
        detr_decoder_config={**small, "num_queries": 12}, mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )  # fmt: skip


def sam3(folder: Path) -> str:
    from transformers import Sam3ImageProcessor, Sam3Model

    tokenizer = clip_tokenizer(folder)
    model = seeded(lambda: Sam3Model(sam3_config()))
    # Without a bias of its own a random decoder gives all its objects one score and one outline.
    louder(model, "dot_product_scoring")
    louder(model, "mask_embedder")
    louder(model, "box_head")
    processor = Sam3ImageProcessor(size={"height": 112, "width": 112})
    return saved(folder, model, processor, tokenizer)


def sam3_video(folder: Path) -> str:
    """The same model in the form in which its authors publish it: beside a tracker, its tensors under
    `detector_model`."""
    from safetensors.torch import load_file, save_file
    from transformers import Sam3VideoConfig

    sam3(folder)
    file = folder / "model.safetensors"
    tensors = {f"detector_model.{name}": value for name, value in load_file(file).items()}
    tensors["tracker_model.no_object_pointer"] = next(iter(tensors.values())).clone()
    save_file(tensors, file, {"format": "pt"})
    Sam3VideoConfig(detector_config=sam3_config().to_dict()).save_pretrained(folder)
    return str(folder)
