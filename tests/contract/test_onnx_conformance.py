"""A fixed sample of ONNX's own backend cases through a real tritonserver: every type and many operators, in a minute.

A case passes when the answer has the bits of plain onnxruntime's own, with the same session options (the defaults).
All cases: `python -m tests.bench.onnx_conformance`.
"""

import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from tests.onnx_cases import TRITON_TYPES, Case, Reference, Verdict, compare, node_cases, reference, wheel_cases
from tests.serving import DEADLINE_S, embedded_server

SAMPLE = frozenset(
    """
    test_abs test_add_uint8 test_add_uint16 test_and_bcast3v1d test_argmax_negative_axis_keepdims_random
    test_attention_4d_fp16 test_averagepool_2d_pads test_batchnorm_epsilon test_bitshift_left_uint64
    test_bitwise_and_i16_3d test_cast_FLOAT_to_BFLOAT16 test_cast_BFLOAT16_to_FLOAT test_cast_DOUBLE_to_FLOAT16
    test_clip_default_int8_max test_compress_negative_axis test_concat_3d_axis_negative_2
    test_constantofshape_int_shape_zero test_convinteger_without_padding test_convtranspose_group_2_image_3
    test_cumsum_1d test_det_2d test_dropout_default_mask test_dynamicquantizelinear_max_adjusted test_einsum_scalar
    test_equal_string test_equal_uint32 test_gather_2d_indices test_gelu_default_1 test_gemm_alpha test_greater_uint16
    test_gridsample_aligncorners_true test_hardmax_negative_axis test_isinf_positive test_layer_normalization_4d_axis1
    test_less_uint32 test_logsoftmax_axis_1 test_lstm_defaults test_matmul_4d test_max_int64 test_max_uint8
    test_maxpool_3d_dilations test_mod_mixed_sign_int8 test_not_2d test_nonzero_example test_pow_types_float32_int64
    test_qlinearmatmul_3D_uint8_float16 test_range_int32_type_negative_delta test_reduce_log_sum_exp_keepdims_example
    test_reduce_max_bool_inputs test_reduce_min_empty_set test_relu test_resize_upsample_sizes_cubic
    test_rms_normalization_2d_axis0 test_scatternd_add test_shape_example test_simple_rnn_reverse test_size_example
    test_split_equal_parts_1d_opset18 test_string_concat test_string_split_basic
    test_strnormalizer_nostopwords_nochangecase test_strnorm_model_nostopwords_nochangecase
    test_tfidfvectorizer_tf_batch_onlybigrams_skip0 test_tile test_transpose_all_permutations_2
    test_unique_sorted_with_axis test_where_long_example test_xor3d test_single_relu_model test_Conv3d
    test_LeakyReLU_with_negval test_operator_flatten test_Embedding_sparse
    """.split()  # noqa: SIM905 - a list of this length reads better as text
)


def sampled() -> list[Case]:
    with warnings.catch_warnings():
        # The cases are generated with NumPy arithmetic that overflows and divides by zero on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        return [case for case in chain(node_cases(), wheel_cases()) if case.name in SAMPLE]


def test_sample_answers_as_plain_onnxruntime_does(tmp_path: Path) -> None:
    cases = sampled()
    assert {case.name for case in cases} == SAMPLE
    references = [ref for case in cases if (ref := reference(case)) is not None]
    assert len(references) == len(cases), SAMPLE - {ref.case.name for ref in references}
    assert _types(cases) == set(TRITON_TYPES), "the sample should cover every type Triton has"
    with embedded_server(tmp_path, "--disable-auto-complete-config") as server, ThreadPoolExecutor(3) as pool:

        def one(ref: Reference) -> tuple[Verdict, str, str]:
            verdict, detail = compare(server.server, tmp_path, ref.case.name, ref, DEADLINE_S)
            return verdict, ref.case.name, detail

        outcomes = list(pool.map(one, references))
    wrong = [outcome for outcome in outcomes if outcome[0] is not Verdict.BITWISE]
    assert not wrong
    assert Counter(verdict for verdict, _, _ in outcomes) == {Verdict.BITWISE: len(SAMPLE)}


def _types(cases: list[Case]) -> set[int]:
    values = [value for case in cases for value in (*case.model.graph.input, *case.model.graph.output)]
    return {value.type.tensor_type.elem_type for value in values}
