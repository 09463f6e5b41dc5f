"""DICOM slides made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from tests.support.slides import jpeg_tile, tiles_of

_ROOT = "2.25.1"


def write_dicom_slide(path: Path, pixels: NDArray[np.uint8], *, mpp: float = 0.5, tile: int = 256) -> Path:
    """One level of tiles, as the standard's TILED_FULL, JPEG."""
    height, width, _ = pixels.shape
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = f"{_ROOT}.3"
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    slide = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slide.SOPClassUID, slide.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, f"{_ROOT}.3"
    slide.StudyInstanceUID, slide.SeriesInstanceUID, slide.FrameOfReferenceUID = f"{_ROOT}.1", f"{_ROOT}.2", f"{_ROOT}.4"
    slide.PatientName, slide.PatientID, slide.StudyDate = "Test^Slide", "none", "20260101"
    slide.Modality, slide.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    slide.ContentDate, slide.ContentTime = "20260102", "030405"
    slide.ContainerIdentifier = "container"
    slide.SpecimenDescriptionSequence = []
    slide.TotalPixelMatrixColumns, slide.TotalPixelMatrixRows, slide.TotalPixelMatrixFocalPlanes = width, height, 1
    slide.Rows = slide.Columns = tile
    slide.DimensionOrganizationType, slide.NumberOfOpticalPaths = "TILED_FULL", 1
    slide.SamplesPerPixel, slide.PlanarConfiguration, slide.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    slide.BitsAllocated, slide.BitsStored, slide.HighBit, slide.PixelRepresentation = 8, 8, 7, 0
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [shared]
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    slide.OpticalPathSequence = [optical]
    frames = [jpeg_tile(each, rgb_components=False, quality=95) for each in tiles_of(pixels, tile)]
    slide.NumberOfFrames = len(frames)
    slide.PixelData = encapsulate(frames)
    slide["PixelData"].is_undefined_length = True
    slide.save_as(path, enforce_file_format=True)
    return path
