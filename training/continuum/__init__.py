"""The continuum encoder: one sequence model over the omnichannel stream of a customer.

The flow: `data` (lake to sequences) -> `batches` (windows and requests) -> `model` and `loss` ->
`train` (one config in, one bundle out) -> `export` (ONNX) -> `infer` (scores from the ONNX file).
"""
