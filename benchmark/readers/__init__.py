"""Readers of data files, for all scenarios: folders of images, Parquet, idx, pickles, archives, lists.

Data roots hold what users, copy tools and strangers put there. So every reader takes regular files of a sane size only
(a FIFO, a device, a folder, a link that leads nowhere, a sparse giant or a packed bomb ends in `DataMissing` that names
the file, never in a hang, a full memory or a traceback), and none of them runs code from a file. Their errors lack a
hint: wrap the calls into `benchmark.data.DataSet.reading`, which says what would be accepted.

Importing this package loads neither PIL nor pyarrow nor torch.
"""

from __future__ import annotations

from benchmark.readers.archives import read_member
from benchmark.readers.cache import Array, Arrays, cached_arrays, file_key
from benchmark.readers.files import is_file, is_folder, listing, opened, read_bytes, shown
from benchmark.readers.idx import idx_header, read_idx
from benchmark.readers.images import ALL_SUFFIXES, MOST_IMAGE_BYTES, SUFFIXES, Decoded, decode, open_image
from benchmark.readers.index import Indexed, index_files
from benchmark.readers.layouts import Layout, read_layout
from benchmark.readers.lists import read_list
from benchmark.readers.parquet import read_parquet
from benchmark.readers.pickles import read_pickle
from benchmark.readers.source import FileImages
from benchmark.readers.tree import class_folders, image_files, read_tree
from benchmark.readers.walk import Found, find_images, listed, subfolders

__all__ = [
    "ALL_SUFFIXES",
    "MOST_IMAGE_BYTES",
    "SUFFIXES",
    "Array",
    "Arrays",
    "Decoded",
    "FileImages",
    "Found",
    "Indexed",
    "Layout",
    "cached_arrays",
    "class_folders",
    "decode",
    "file_key",
    "find_images",
    "idx_header",
    "image_files",
    "index_files",
    "is_file",
    "is_folder",
    "listed",
    "listing",
    "open_image",
    "opened",
    "read_bytes",
    "read_idx",
    "read_layout",
    "read_list",
    "read_member",
    "read_parquet",
    "read_pickle",
    "read_tree",
    "shown",
    "subfolders",
]
