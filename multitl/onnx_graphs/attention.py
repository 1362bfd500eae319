"""Attention as Keras' own layer has it; what this project translates computes it in steps."""

from __future__ import annotations

import math
from typing import Any

from multitl.onnx_graphs.activations import softmax
from multitl.onnx_graphs.elementwise import multiply
from multitl.onnx_graphs.products import einsum, einsum_dense
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, attention")

OPTIONS = ("use_gate", "sliding_window", "attention_axes")  # that change what is computed, where they are set


@writes("layers.MultiHeadAttention")
def multi_head_attention(
    sheet: Sheet, layer: Any, query: Value, value: Value, key: Value | None = None, **options: Operand
) -> Value:
    """(batch, tokens, channels) each. softmax(q k^T / sqrt(channels of a head)) v, without a mask."""
    config = layer.get_config()
    told = [name for name, given in options.items() if given is not False]
    told += [name for name in OPTIONS if config.get(name) not in (None, False, [1], (1,))]
    if told or query.rank != 3:
        raise Unsupported(", ".join(told) or "tokens in several axes")
    asked = einsum_dense(sheet, layer.query_dense, query)
    keys = einsum_dense(sheet, layer.key_dense, value if key is None else key)
    values = einsum_dense(sheet, layer.value_dense, value)
    scores = einsum(sheet, "bqhd,bkhd->bhqk", [multiply(sheet, asked, 1 / math.sqrt(layer.key_dim)), keys])
    mixed = einsum(sheet, "bhqk,bkhd->bqhd", [softmax(sheet, scores), values])
    return einsum_dense(sheet, layer.output_dense, mixed)
