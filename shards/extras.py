"""Optional packages: which extra of ours brings each, and the one line that says so where it is missing.

A package of an extra is imported where it is used, never at the top of a module:

    try:
        import av
    except ImportError as error:
        raise missing("av", "reading videos") from error
"""

from __future__ import annotations

from shards.errors import UsageError

SYSTEM_LIBRARY = "cannot open shared object file"
"""In the ImportError of a package whose library the machine lacks: images of containers and nodes of clusters."""
OPENCV_LIBRARIES = (
    "apt-get install libgl1 libglib2.0-0, or without root: "
    "pip uninstall -y opencv-python && pip install opencv-python-headless"
)

EXTRAS = {
    "av": ("PyAV", "video"),
    "gymnasium": ("gymnasium", "examples"),
    "huggingface_hub": ("huggingface_hub", "hub"),
    "mlflow": ("mlflow-skinny", "log"),
    "obstore": ("obstore", "remote"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "onnxscript": ("onnxscript", "export"),
    "pygame": ("pygame", "examples"),
    "ray": ("Ray", "ray"),
    "sklearn": ("scikit-learn", "report"),
    "tensorboard": ("tensorboard", "log"),
    "timm": ("timm", "timm"),
    "trackio": ("trackio", "log"),
    "umap": ("umap-learn", "report"),
    "wandb": ("wandb", "log"),
}
"""Module → its package as people know it, and the extra in pyproject.toml."""


def missing_line(module: str, purpose: str = "") -> str:
    """ "reading videos needs PyAV, which is not installed: pip install 'seqjepa[video]'", or without a purpose
    "PyAV is not installed: …". The command works from any folder, for seqjepa itself is there already."""
    package, extra = EXTRAS[module]
    said = f"{purpose} needs {package}, which" if purpose else package
    return f"{said} is not installed: pip install 'seqjepa[{extra}]'"


def missing(module: str, purpose: str = "") -> UsageError:
    """The error to raise from an ImportError of that module: missing_line."""
    return UsageError(missing_line(module, purpose))
