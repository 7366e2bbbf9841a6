"""How every process of the program begins: that of the command, a worker's, a Ray actor's.

It is called before torch is imported. No module does it on import: who uses one as a library has settings of their own.
"""

import os
import tempfile
import warnings
from pathlib import Path


def begin_process() -> None:
    """No library warns from here on, and threads that wait for each other do so without spinning."""
    _silence_libraries()
    # So that threads of the network that wait leave their core to the one that reads ahead; torch reads it on import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _spare_temporary_folder()


def _silence_libraries() -> None:
    """Shows no warning of a library in this process: it may quote what was read, a patient's name say.

    To silence them around a call is not enough: where several threads do that, one switches them on for another.
    """
    warnings.simplefilter("ignore")


def _spare_temporary_folder() -> None:
    """Lets torch be imported where nothing can be written, as in a container: it asks for a folder for kernels then."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parent))  # nothing is compiled into it
