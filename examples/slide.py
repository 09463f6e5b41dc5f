"""Analyses a slide that the server can read, and keeps the artifacts that it streams back.

Run: python examples/slide.py SLIDE FOLDER [ADDRESS] [--mpp MICROMETRES]

`--mpp` is the size of a pixel, for a slide or a field of view that does not tell it.
"""

import argparse
import json
import sys
from pathlib import Path

import grpc
from lamina.v1 import slides_pb2, slides_pb2_grpc


def main(slide: str, folder: Path, address: str, mpp: float | None) -> None:
    """Print the progress and the findings; write the artifacts into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with grpc.insecure_channel(address) as channel:
        request = slides_pb2.AnalyzeSlideRequest(slide_uri=slide, analysis="he_baseline", mpp=mpp)
        for event in slides_pb2_grpc.SlideServiceStub(channel).AnalyzeSlide(request, timeout=3600):
            match event.WhichOneof("event"):
                case "progress":
                    print(f"{event.progress.stage}: {event.progress.tiles_done} of {event.progress.tiles_total} tiles", file=sys.stderr)
                case "chunk":
                    with (folder / event.chunk.name).open("ab" if event.chunk.offset else "wb") as artifact:
                        artifact.write(event.chunk.data)
                case "result":
                    print(json.dumps(json.loads(event.result.report_json), indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Analyse a slide.")
    parser.add_argument("slide")
    parser.add_argument("folder", type=Path)
    parser.add_argument("address", nargs="?", default="127.0.0.1:8001")
    parser.add_argument("--mpp", type=float)
    given = parser.parse_args()
    main(given.slide, given.folder, given.address, given.mpp)
