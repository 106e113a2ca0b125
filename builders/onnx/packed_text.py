"""The packed encoder's graph where sentences are told apart, in ONNX's text form: its first half, and two operators.

`packed` puts it around what PyTorch exports. Sentences of one length, of which one alone is a case, need no padding:
everything here has a branch for them that only reshapes. Otherwise attention is padded in groups of like length.

Shapes: T tokens as they arrive, P tokens without padding, B sentences, D dimension; in each of BUCKETS groups of like
length, N sentences and L tokens of the longest.
"""

from builders.onnx.torch_export import IR_VERSION, OPSET

BUCKETS = 3
"""Groups of like length that attention is padded in: above half of the longest sentence, above a quarter, the rest."""

DOMAIN = "tritonfleet"
"""Of the operators that `packed_module` leaves open: Attention and Mean."""
BETWEEN = ("packed_ids", "position", "counts")
"""What the first half of the graph hands to the second, in the order of `PackedEncoder.forward`."""
_GROUPED = {
    **{f"places{k}": ("int64", (f"N{k}", f"L{k}")) for k in range(BUCKETS)},
    **{f"bias{k}": ("float", (f"N{k}", "1", "1", f"L{k}")) for k in range(BUCKETS)},
    "unpad": ("int64", ("P",)),
    "shares": ("float", ("B", "P")),
}
LAYOUT = ("even", "rows", *_GROUPED)
"""Where the tokens of the batch lie: what the open operators read besides their own inputs.

BOOL `even`: whether the tokens are sentences of one length, without padding. INT64 `rows` [1]: B if so, else 1. Where
they are not, of each group: `places`, which token stands in each padded place, and `bias`, which masks places without
one; `unpad`, where each token stands in the groups one after another; `shares`, the weight of each token in each
sentence's mean. Where they are, all these are empty.
"""

# The count is held within what arrived: whatever a caller claims, a sentence never reads a neighbour's tokens. B times
# the shortest count is T only where every count is the shortest and nothing is padding, for the widths sum up to T.
# `bucket` counts how often a sentence can be doubled before it is longer than the longest. `position` has a dimension
# of its own: told that it is P, ONNX Runtime fuses the sum of the embeddings with their normalisation, which is slower.
_UNPAD = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
unpad (int64[T] {ids}, int32[B, 1] {count}, int32[B, 1] {shape})
   => (int64[P] packed_ids, int64[Q] position, int64[B] counts, bool even, int64[1] rows, {typed}) {{
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  widths32 = Reshape ({shape}, flat)
  widths = Cast <to = 7> (widths32)
  claimed32 = Reshape ({count}, flat)
  claimed = Cast <to = 7> (claimed32)
  within = Min (claimed, widths)
  counts = Max (within, zero)
  length = Size ({ids})
  index = Range (zero, length, one)
  batch = Size (counts)
  shortest = ReduceMin <keepdims = 0> (counts)
  filled = Mul (batch, shortest)
  arrived = Max (length, one)
  even = Equal (filled, arrived)
  sequences = Where (even, batch, one)
  rows = Reshape (sequences, flat)
  packed_ids, position, {grouped} = If (even) <
    then_branch = one_length () => (int64[P] all_ids, int64[Q] all_positions, {typed_unused}) {{
      all_ids = Identity ({ids})
      all_positions = Mod (index, shortest)
{unused}    }},
    else_branch = several () => (int64[P] real_ids, int64[Q] real_positions, {typed_own}) {{
      axis1 = Constant <value_ints = [1]> ()
      axes12 = Constant <value_ints = [1, 2]> ()
      open = Constant <value = float {{0.0}}> ()
      masked = Constant <value = float {{{masked}}}> ()
      factors = Constant <value_ints = {factors}> ()
      ends = CumSum (widths, zero)
      starts = Sub (ends, widths)
      column = Unsqueeze (index, axis1)
      passed = GreaterOrEqual (column, ends)
      passed64 = Cast <to = 7> (passed)
      item = ReduceSum <keepdims = 0> (passed64, axis1)
      start = Gather (starts, item)
      offset = Sub (index, start)
      own_count = Gather (counts, item)
      real = Less (offset, own_count)
      real_ids = Compress <axis = 0> ({ids}, real)
      real_positions = Compress <axis = 0> (offset, real)
      real_item = Compress <axis = 0> (item, real)
      packed_ends = CumSum (counts, zero)
      packed_starts = Sub (packed_ends, counts)
      packed = Size (real_ids)
      last = Sub (packed, one)
      longest = ReduceMax <keepdims = 0> (counts)
      count_column = Unsqueeze (counts, axis1)
      times = Mul (count_column, factors)
      still = LessOrEqual (times, longest)
      still64 = Cast <to = 7> (still)
      bucket = ReduceSum <keepdims = 0> (still64, axis1)
{groups}      held = Concat <axis = 0> ({held})
      tokens = Concat <axis = 0> ({tokens})
      where = NonZero (held)
      place = Reshape (where, flat)
      token = Gather (tokens, place)
      own_unpad = ScatterElements (place, token, place)
      numbers = Range (zero, batch, one)
      number_column = Unsqueeze (numbers, axis1)
      owned = Equal (number_column, real_item)
      owned32 = Cast <to = 1> (owned)
      divisor = Max (count_column, one)
      divisor32 = Cast <to = 1> (divisor)
      own_shares = Div (owned32, divisor32)
    }}
  >
}}
"""
_GROUP = """\
      number{k} = Constant <value_int = {k}> ()
      inside{k} = Equal (bucket, number{k})
      where{k} = NonZero (inside{k})
      chosen{k} = Reshape (where{k}, flat)
      inside_counts{k} = Where (inside{k}, counts, one)
      width{k} = ReduceMax <keepdims = 0> (inside_counts{k})
      offset{k} = Range (zero, width{k}, one)
      starts{k} = Gather (packed_starts, chosen{k})
      start_column{k} = Unsqueeze (starts{k}, axis1)
      reached{k} = Add (start_column{k}, offset{k})
      own_places{k} = Min (reached{k}, last)
      counts{k} = Gather (counts, chosen{k})
      column{k} = Unsqueeze (counts{k}, axis1)
      real{k} = Less (offset{k}, column{k})
      bias_row{k} = Where (real{k}, open, masked)
      own_bias{k} = Unsqueeze (bias_row{k}, axes12)
      held{k} = Reshape (real{k}, flat)
      tokens{k} = Reshape (own_places{k}, flat)
"""
_MASKED = "-3.0e38"
"""Added to the score of a place that holds no token: close to FP32's lowest, so that its weight is exactly 0."""

# Products with weights stay out of the branches, so that `optimise` and `quantize` find them; so do the first reshapes,
# which would copy there. No shape copies a size with 0: optimisers of graphs join such reshapes wrongly.
_ATTENTION = """
<domain: "{domain}", opset_import: ["" : {opset}]>
Attention <scale, heads> (query, key, value, {layout}) => (attended) {{
  factor = Constant <value: tensor = @scale> ()
  of_row = Constant <value_ints: ints = @heads> ()
  shape = Concat <axis = 0> (rows, of_row)
  queries = Reshape (query, shape)
  keys = Reshape (key, shape)
  values = Reshape (value, shape)
  attended = If (even) <
    then_branch = one_length () => (float[rows, width, heads, d] mixed) {{
{attend}    }},
    else_branch = several () => (float[rows, width, heads, d] mixed_tokens) {{
      axis0 = Constant <value_ints = [0]> ()
{groups}      padded = Concat <axis = 1> ({mixed})
      mixed_tokens = Gather <axis = 1> (padded, unpad)
    }}
  >
}}
"""
_GATHER = """\
      queries_in{k} = Gather <axis = 1> (queries, places{k})
      keys_in{k} = Gather <axis = 1> (keys, places{k})
      values_in{k} = Gather <axis = 1> (values, places{k})
      queries{k} = Squeeze (queries_in{k}, axis0)
      keys{k} = Squeeze (keys_in{k}, axis0)
      values{k} = Squeeze (values_in{k}, axis0)
"""
_ATTEND = """\
      query_heads{k} = Transpose <perm = [0, 2, 1, 3]> (queries{k})
      key_heads{k} = Transpose <perm = [0, 2, 3, 1]> (keys{k})
      value_heads{k} = Transpose <perm = [0, 2, 1, 3]> (values{k})
      products{k} = MatMul (query_heads{k}, key_heads{k})
      scaled{k} = Mul (products{k}, factor)
{mask}      weights{k} = Softmax <axis = -1> ({scores})
      heads{k} = MatMul (weights{k}, value_heads{k})
      mixed{k} = Transpose <perm = [0, 2, 1, 3]> (heads{k})
"""
_MASK = "      scores{k} = Add (scaled{k}, bias{k})\n"
_PACK = "      packed{k} = Reshape (mixed{k}, shape)\n"
_MEAN = """
<domain: "{domain}", opset_import: ["" : {opset}]>
Mean <sentence> (states, {layout}) => (mean) {{
  mean = If (even) <
    then_branch = one_length () => (float[B, D] mean_of_rows) {{
      axis1 = Constant <value_ints = [1]> ()
      of_row = Constant <value_ints: ints = @sentence> ()
      shape = Concat <axis = 0> (rows, of_row)
      sentences = Reshape (states, shape)
      mean_of_rows = ReduceMean <keepdims = 0> (sentences, axis1)
    }},
    else_branch = several () => (float[B, D] weighted) {{
      weighted = MatMul (shares, states)
    }}
  >
}}
"""


def unpad_text(*, ids: str, count: str, shape: str) -> str:
    """Return the graph's first half, from the tensors that Triton brings to BETWEEN and LAYOUT."""
    return _UNPAD.format(
        ir_version=IR_VERSION,
        opset=OPSET,
        ids=ids,
        count=count,
        shape=shape,
        grouped=", ".join(_GROUPED),
        typed=_typed(""),
        typed_unused=_typed("no_"),
        unused="".join(
            f"      none_{name} = Constant <value_ints = [{', '.join(no if no == '1' else '0' for no in sizes)}]> ()\n"
            f"      no_{name} = ConstantOfShape <value = {element}[1] {{0}}> (none_{name})\n"
            for name, (element, sizes) in _GROUPED.items()
        ),
        typed_own=_typed("own_"),
        masked=_MASKED,
        factors=[2**doubled for doubled in range(1, BUCKETS)],
        groups=_each(_GROUP),
        held=_each("held{k}", ", "),
        tokens=_each("tokens{k}", ", "),
    )


def operator_texts() -> tuple[str, str]:
    """Return what stands for the open operators, as functions; each reads LAYOUT after its own inputs.

    Attention (query, key, value FP32 [P, heads * d]) -> FP32 [rows, P / rows, heads, d] has the attributes `scale`, a
    tensor, and `heads` = [-1, heads, d]. Mean (states FP32 [P, D]) -> FP32 [B, D] has `sentence` = [-1, D].
    """
    common = {"domain": DOMAIN, "opset": OPSET, "layout": ", ".join(LAYOUT)}
    padded = _GATHER + _ATTEND.format(k="{k}", mask=_MASK, scores="scores{k}") + _PACK
    attention = _ATTENTION.format(
        **common,
        attend=_ATTEND.format(k="", mask="", scores="scaled"),
        groups=_each(padded),
        mixed=_each("packed{k}", ", "),
    )
    return attention, _MEAN.format(**common)


def _each(text: str, between: str = "") -> str:
    return between.join(text.format(k=k) for k in range(BUCKETS))


def _typed(prefix: str) -> str:
    """Return the tensors of `_GROUPED` with their types in ONNX's text form, `prefix` before each name."""
    return ", ".join(f"{element}[{', '.join(sizes)}] {prefix}{name}" for name, (element, sizes) in _GROUPED.items())
