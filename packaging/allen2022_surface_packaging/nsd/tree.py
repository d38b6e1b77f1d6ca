"""An NSD tree: the paths of its files in the two layouts. Every path of a raw file is made here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackagingError
from ..facts import DEFAULT_BETAS, FSAVERAGE, NATIVE, NATIVE_ATLASES, SUBJECTS, subject_name
from .storage import RawFile, Storage, open_storage

IMAGE_FORMATS = ("png", "jpg")  # of extracted images
BETAS_SUFFIXES = {FSAVERAGE: "mgh", NATIVE: "hdf5"}


@dataclass(frozen=True)
class Layout:
    """The paths of NSD's files below a root.

    Attributes
    ----------
    betas : the folder of a version of a subject's betas; ``{s}`` stands for the subject's name, ``{v}`` for the version
    default_betas : the name of the version that most releases are made from
    native_betas : as `betas`, for the betas on the subject's own surface
    labels : the folder of the atlases on fsaverage
    native_labels : the folder of the atlases that NSD drew on a subject's own surface
    transforms : the folder of the maps from a subject's own surface
    experiment : the folder of the experiment design
    images : the possible paths of the images
    """

    name: str
    betas: str
    default_betas: str
    native_betas: str
    labels: str
    native_labels: str
    transforms: str
    experiment: str
    images: tuple[str, ...]

    def betas_folder(self, subject: int, version: str = DEFAULT_BETAS, files: str = FSAVERAGE) -> str:
        """Return the folder of a version of a subject's betas, on fsaverage or on the subject's own surface."""
        if files == NATIVE:
            return self.native_betas.format(s=subject_name(subject), v=version)
        name = self.default_betas if version == DEFAULT_BETAS else version
        return self.betas.format(s=subject_name(subject), v=name)

    def labels_folder(self, subject: int = 0) -> str:
        """Return the folder of the atlases on fsaverage, or on a subject's own surface."""
        return self.native_labels.format(s=subject_name(subject)) if subject else self.labels


OFFICIAL = Layout(
    name="official",
    betas="nsddata_betas/ppdata/{s}/fsaverage/{v}",
    default_betas=DEFAULT_BETAS,
    native_betas="nsddata_betas/ppdata/{s}/nativesurface/{v}",
    labels="nsddata/freesurfer/fsaverage/label",
    native_labels="nsddata/freesurfer/{s}/label",
    transforms="nsddata/ppdata/{s}/transforms",
    experiment="nsddata/experiments/nsd",
    images=("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",),
)
FLAT = Layout(
    name="flat",
    betas="{s}/{v}",
    default_betas="betas",
    native_betas="{s}/nativesurface/{v}",
    labels="fsaverage_labels",
    native_labels="{s}/label",
    transforms="{s}/transforms",
    experiment="metadata",
    images=("nsd_stimuli.hdf5", "stimuli/nsd_stimuli.hdf5"),
)
LAYOUTS = {layout.name: layout for layout in (OFFICIAL, FLAT)}


@dataclass(frozen=True)
class NSDTree:
    """An NSD tree: where it is stored, and in which layout."""

    storage: Storage
    layout: Layout

    def __str__(self) -> str:
        return str(self.storage)

    @property
    def design(self) -> RawFile:
        """The experiment design."""
        return self._file(lambda layout: f"{layout.experiment}/nsd_expdesign.mat")

    @property
    def stimulus_info(self) -> RawFile:
        """The table of all images with their COCO ids. A tree may lack it."""
        return self._file(lambda layout: f"{layout.experiment}/nsd_stim_info_merged.csv")

    @property
    def images(self) -> RawFile:
        """The images. If there are none, the file where they should be."""
        files = [RawFile(self.storage, path, OFFICIAL.images[0]) for path in self.layout.images]
        return next((file for file in files if file.exists()), files[0])

    @property
    def simulation_mark(self) -> RawFile:
        """The text file that says that the tree is simulated. A tree of measurements lacks it."""
        return self._file(lambda _: "SIMULATED.txt")

    @property
    def is_simulated(self) -> bool:
        """Whether the tree is simulated."""
        return self.simulation_mark.exists()

    def betas(
        self, subject: int, hemisphere: str, session: int, version: str = DEFAULT_BETAS, files: str = FSAVERAGE
    ) -> RawFile:
        """Return the single-trial responses of one session (1-based) and hemisphere."""
        name = f"{hemisphere}.betas_session{session:02d}.{BETAS_SUFFIXES[files]}"
        return self._file(lambda layout: f"{layout.betas_folder(subject, version, files)}/{name}")

    def ncsnr(self, subject: int, hemisphere: str, version: str = DEFAULT_BETAS) -> RawFile:
        """Return the noise-ceiling signal-to-noise ratio of a version of the betas."""
        return self._file(lambda layout: f"{layout.betas_folder(subject, version)}/{hemisphere}.ncsnr.mgh")

    def labels(self, atlas: str, hemisphere: str, subject: int = 0) -> RawFile:
        """Return the labels of an atlas on fsaverage, or of one that NSD drew on a subject's own surface."""
        return self._file(lambda layout: f"{layout.labels_folder(subject)}/{hemisphere}.{atlas}.mgz")

    def atlases(self) -> list[str]:
        """Return the names of the atlases that are there, sorted: those on fsaverage, and those that NSD drew for each subject."""
        matches = (re.fullmatch(r"lh\.(.+)\.mgz", name) for name in self.storage.names(self.layout.labels))
        drawn = [atlas for atlas in NATIVE_ATLASES if any(self.labels(atlas, "lh", s).exists() for s in SUBJECTS)]
        return sorted([*(match[1] for match in matches if match), *drawn])

    def label_names(self, atlas: str, subject: int = 0) -> RawFile:
        """Return the colour table of an atlas, which names its labels. A tree may lack it."""
        return self._file(lambda layout: f"{layout.labels_folder(subject)}/{atlas}.mgz.ctab")

    def native_index(self, subject: int, hemisphere: str) -> RawFile:
        """Return the map that says which vertex of a subject's own surface each vertex of fsaverage copies."""
        name = f"{hemisphere}.white-to-fsaverage.mgz"
        return self._file(lambda layout: f"{layout.transforms.format(s=subject_name(subject))}/{name}")

    def prepared_assembly(self, region: str) -> RawFile:
        """Return the averages of a region that an earlier packaging left in the tree."""
        return self._file(lambda _: f"assemblies/Allen2022_surface.{region}.nc")

    def extracted_images(self) -> dict[str, RawFile]:
        """Return the image files that an earlier packaging extracted, by their names; the train folder goes first."""
        folders = ("brainscore/stimuli_test", "brainscore/stimuli_train")
        names = {name: f"{folder}/{name}" for folder in folders for name in self.storage.names(folder)}
        return {name: RawFile(self.storage, path, path) for name, path in names.items()}

    def sessions_present(self, subject: int, version: str = DEFAULT_BETAS, files: str = FSAVERAGE) -> list[int]:
        """Return the sessions (1-based) for which the betas of at least one hemisphere are there."""
        names = self.storage.names(self.layout.betas_folder(subject, version, files))
        matches = (re.fullmatch(rf"[lr]h\.betas_session(\d{{2}})\.{BETAS_SUFFIXES[files]}", name) for name in names)
        return sorted({int(match[1]) for match in matches if match})

    def _file(self, path_in: Callable[[Layout], str]) -> RawFile:
        return RawFile(self.storage, path_in(self.layout), path_in(OFFICIAL))


def open_tree(root: str | Path) -> NSDTree:
    """Open an NSD tree.

    Raises
    ------
    PackagingError
        If neither layout has an experiment design.
    """
    tree = find_tree(root)
    if not tree.design.exists():
        designs = {name: NSDTree(tree.storage, layout).design for name, layout in LAYOUTS.items()}
        paths = " or ".join(f"{design.path} ({name} layout)" for name, design in designs.items())
        raise PackagingError(
            f"{root} holds no NSD design. Expected {paths}. Is this the root of the NSD tree? "
            "`allen2022-surface check` lists the files needed and says how to fetch them."
        )
    return tree


def find_tree(root: str | Path) -> NSDTree:
    """Open an NSD tree that may lack any file, even all of them.

    Its layout is the one in which the experiment design lies, or else any other file; official if there is no file.

    Raises
    ------
    PackagingError
        If `root` is a file, its address does not name a bucket, or not `root` but a folder above or inside it is a tree.
    """
    storage = open_storage(root)
    found = _find_in(storage)
    if not found or not found.design.exists():
        if storage.find("release.json"):
            raise PackagingError(f"{root} is a release, expected an NSD tree, from which a release is made.")
        for near in filter(None, map(_find_in, storage.near())):
            if not found or near.design.exists():
                raise PackagingError(f"{root} is no NSD tree, but {near} is. Name that one.")
    return found or NSDTree(storage, OFFICIAL)


def _find_in(storage: Storage) -> NSDTree | None:
    """Return the tree at a place; None if no file of NSD is there."""
    trees = [NSDTree(storage, layout) for layout in LAYOUTS.values()]
    return next((tree for tree in trees if tree.design.exists()), None) or next(filter(_has_any_file, trees), None)


def _has_any_file(tree: NSDTree) -> bool:
    folders = [tree.layout.labels, *(tree.layout.betas_folder(subject) for subject in SUBJECTS)]
    files = (tree.stimulus_info, tree.images)
    return any(file.exists() for file in files) or any(tree.storage.names(folder) for folder in folders)
