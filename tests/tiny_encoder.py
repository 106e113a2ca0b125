"""A sentence encoder small enough for tests: a real BERT with random weights, saved as its authors would save one."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
DIMENSION = 32
MAX_SEQ_LENGTH = 24


def save_tiny_encoder(folder: Path) -> Path:
    """Write the checkpoint to `folder` (made if need be) in the layout of sentence-transformers, and return it."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=DIMENSION,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_SEQ_LENGTH,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "1_Pooling").mkdir()
    for name, data in {
        "sentence_bert_config.json": {"max_seq_length": MAX_SEQ_LENGTH},
        "1_Pooling/config.json": {"word_embedding_dimension": DIMENSION, "pooling_mode_mean_tokens": True},
        "modules.json": [{"type": "sentence_transformers.models.Normalize"}],
    }.items():
        (folder / name).write_text(json.dumps(data))
    return folder
