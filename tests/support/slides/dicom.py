"""DICOM slides made for tests: a folder with a file for each level, tiles in JPEG (DICOM PS3.3, A.32.8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from tests.support.slides.painted import Pixels, jpeg_tile, tiles_of


def write_dicom(
    folder: Path, levels: Sequence[Pixels], *, mpp: float = 0.5, tile: int = 256, profile: bytes = b"", label: Pixels | None = None
) -> Path:
    """A slide of these levels, from large to small; returns the file of level 0. `label`: written as `label.dcm` beside it."""
    folder.mkdir(parents=True)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    images = {f"level{number}": _level(number, pixels, levels[0], mpp, tile, profile) for number, pixels in enumerate(levels)}
    if label is not None:
        images["label"] = _level(0, label, label, mpp, tile, profile)
        images["label"].ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    for stem, data in images.items():
        for name, uid in uids.items():
            setattr(data, name, uid)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(folder / f"{stem}.dcm", enforce_file_format=True)
    return folder / "level0.dcm"


def _level(number: int, pixels: Pixels, base: Pixels, mpp: float, tile: int, profile: bytes) -> Dataset:
    frames = [jpeg_tile(each, rgb_components=False, quality=95) for each in tiles_of(pixels, tile)]
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, generate_uid()
    data.Modality, data.ContainerIdentifier, data.SpecimenDescriptionSequence = "SM", "container", []
    data.PatientName, data.PatientID, data.StudyDate = "Test^Slide", "none", "20260101"
    data.ContentDate, data.ContentTime = "20260102", "030405"
    data.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"] if number else ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType = "TILED_FULL"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "YBR_FULL_422", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows, data.Columns, data.NumberOfFrames = tile, tile, len(frames)
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.TotalPixelMatrixFocalPlanes = 1
    data.ImagedVolumeHeight, data.ImagedVolumeWidth = (side * mpp / 1000 for side in base.shape[:2])
    measures, shared, path = Dataset(), Dataset(), Dataset()
    spacing = mpp * base.shape[1] / pixels.shape[1] / 1000
    measures.PixelSpacing, measures.SliceThickness = [spacing, spacing], 0.001
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    path.OpticalPathIdentifier = "1"
    if profile:
        path.ICCProfile = profile
    data.OpticalPathSequence, data.NumberOfOpticalPaths = [path], 1
    data.PixelData = encapsulate(frames, has_bot=True)
    data["PixelData"].VR = "OB"
    return data
