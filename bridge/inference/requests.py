"""What is asked of the servers, as protobuf messages."""

from __future__ import annotations

from lamina.v1 import documents_pb2, slides_pb2

from bridge.inference.documents import DocumentOptions
from bridge.inference.slides import SlideOptions

_TEXT_MODES = {
    "": documents_pb2.TEXT_MODE_UNSPECIFIED,
    "ocr": documents_pb2.TEXT_MODE_OCR,
    "layer": documents_pb2.TEXT_MODE_LAYER,
    "auto": documents_pb2.TEXT_MODE_AUTO,
}
# By the endings of the files' names.
_FORMATS = {
    "json": documents_pb2.OUTPUT_FORMAT_JSON,
    "txt": documents_pb2.OUTPUT_FORMAT_TEXT,
    "hocr": documents_pb2.OUTPUT_FORMAT_HOCR,
    "alto": documents_pb2.OUTPUT_FORMAT_ALTO,
    "pdf": documents_pb2.OUTPUT_FORMAT_SEARCHABLE_PDF,
    "tsv": documents_pb2.OUTPUT_FORMAT_TSV,
}
_DEVICES = {"": documents_pb2.DEVICE_UNSPECIFIED, "gpu": documents_pb2.DEVICE_GPU, "cpu": documents_pb2.DEVICE_CPU}


def slide_request(slide_uri: str, request_id: str, options: SlideOptions) -> slides_pb2.AnalyzeSlideRequest:
    """To analyse a slide."""
    request = slides_pb2.AnalyzeSlideRequest(
        slide_uri=slide_uri,
        analysis=options.analysis,
        output_uri=options.output_uri,
        mpp=options.mpp,
        tile_size=options.tile_size,
        request_id=request_id,
        priority=options.priority,
        checkpoints=options.checkpoints,
        artifacts=options.artifacts,
        share=None if options.share is None else slides_pb2.SlideShare(index=options.share[0], count=options.share[1]),
        apply_icc_profile=options.apply_icc_profile,
        assumed_mpp=options.assumed_mpp,
    )
    if options.resume is not None:
        request.resume.CopyFrom(slides_pb2.SlideResume(part_uris=options.resume.uris, parts=options.resume.parts))
    return request


def document_request(
    content: bytes, document_uri: str, request_id: str, options: DocumentOptions
) -> documents_pb2.RecognizeDocumentRequest:
    """To read a document: the one at the path or URL where one is given, else the bytes."""
    request = documents_pb2.RecognizeDocumentRequest(
        request_id=request_id,
        dpi=options.dpi,
        password=options.password,
        pages=options.pages,
        priority=options.priority,
        text_mode=_TEXT_MODES[options.text_mode],
        formats=[_FORMATS[name] for name in options.formats],
        device=_DEVICES[options.device],
    )
    if document_uri:
        request.document_uri = document_uri
    else:
        request.content = content
    return request
