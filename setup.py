from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

BRAINSCORE = ["brainscore_vision>=2.4"]
REPORT = ["jinja2>=3.1", "nilearn>=0.11"]
DOCS = [
    "matplotlib>=3.8",  # draws the maps of the tour
    "myst-nb>=1.1",  # runs the tour when the documentation is built
    "numpydoc>=1.7",
    "pydata-sphinx-theme>=0.15",
    "sphinx>=7.3",
    "sphinx-copybutton>=0.5",
    "sphinx-design>=0.6",
]
TEST = [
    "build>=1.2",
    "hypothesis>=6.100",
    "moto[server]>=5.1",
    "mypy>=1.10",
    "pandas-stubs<3",
    "types-boto3[s3,sts]",
    "nbformat>=5.9",  # the published notebooks are run as a further check of the method
    "pytest>=8",
    "pytest-check>=2.3",  # imported by brainscore_core's plugin discovery
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "twine>=6.1",
    "types-tqdm",
    "websocket-client>=1.6",  # drives the browser that looks at the report
]

setup(
    name="brainscore_allen2022_surface",
    version="0.1.0",
    description="The Natural Scenes Dataset on the cortical surface, packaged for and loaded by Brain-Score",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        "brainscore_allen2022_surface",
        "brainscore_allen2022_surface.analysis",
        "allen2022_surface_packaging",
        "allen2022_surface_packaging.nsd",
        "allen2022_surface_packaging.assemble",
        "allen2022_surface_packaging.verify",
        "allen2022_surface_packaging.publish",
        "allen2022_surface_packaging.report",
    ],
    package_dir={"allen2022_surface_packaging": "packaging/allen2022_surface_packaging"},
    package_data={
        "brainscore_allen2022_surface": ["README.md", "artifacts.json", "data_packaging/*", "py.typed"],
        "allen2022_surface_packaging": ["py.typed", "recipes/*.toml"],
        "allen2022_surface_packaging.nsd": ["simulated_atlases/*"],
        "allen2022_surface_packaging.publish": ["templates/*"],
        "allen2022_surface_packaging.report": ["templates/*"],
    },
    install_requires=[
        "boto3>=1.36",  # conditional writes
        "brainscore_core>=2.4",
        "dask>=2024.8",
        "distributed>=2024.8",
        "h5py>=3.10",
        "msgspec>=0.19",  # release.json and artifacts.json, read into typed records
        "netCDF4>=1.6.5",
        "nibabel>=5.2",
        "numpy<2",
        "packaging>=21",
        "pandas<3",
        "Pillow>=10",
        "scipy>=1.11",
        "tqdm>=4.66",
        "xarray<2022.6",
    ],
    extras_require={
        "brainscore": BRAINSCORE,
        "report": REPORT,
        "docs": BRAINSCORE + REPORT + DOCS,
        "test": BRAINSCORE + REPORT + DOCS + TEST,
    },
    entry_points={"console_scripts": ["allen2022-surface=allen2022_surface_packaging.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering",
    ],
)
