"""Reads a document of this machine, prints its text, and keeps the files that the server makes of it: hOCR, ALTO, TSV, a searchable PDF.

Run: python examples/document.py DOCUMENT FOLDER [ADDRESS]
"""

import sys
from pathlib import Path

import grpc
from lamina.v1 import documents_pb2, documents_pb2_grpc

FORMATS = [
    documents_pb2.OUTPUT_FORMAT_HOCR,
    documents_pb2.OUTPUT_FORMAT_ALTO,
    documents_pb2.OUTPUT_FORMAT_TSV,
    documents_pb2.OUTPUT_FORMAT_SEARCHABLE_PDF,
]


def main(document: Path, folder: Path, address: str) -> None:
    """Print each page as it comes; write the files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with grpc.insecure_channel(address) as channel:
        request = documents_pb2.RecognizeDocumentRequest(
            content=document.read_bytes(), text_mode=documents_pb2.TEXT_MODE_AUTO, formats=FORMATS
        )
        for event in documents_pb2_grpc.DocumentServiceStub(channel).RecognizeDocument(request, timeout=3600):
            match event.WhichOneof("event"):
                case "page":
                    print(event.page.error or event.page.text)
                case "chunk":
                    with (folder / event.chunk.name).open("ab" if event.chunk.offset else "wb") as file:
                        file.write(event.chunk.data)
                    if event.chunk.error:
                        print(f"{event.chunk.name}: {event.chunk.error}", file=sys.stderr)
                case "summary":
                    print(f"{event.summary.page_count} pages, {event.summary.failed_pages} failed", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1:8001")
