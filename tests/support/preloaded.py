"""All modules that a night loads, even for an export: imported once by the process that all nights are forked from."""

import tempfile
from pathlib import Path

import jinja2
import pandas as pd
import pyarrow.dataset as ds
import rich.console
import torch
import vl_convert
from pythonjsonlogger import json as json_lines

import batchrec.nightly.run
import tests.faults.children
import tests.support.ranks
from batchrec.config import EncoderShape
from batchrec.training.encoder import Encoder
from batchrec.training.export import write_encoder

LOADED = (
    jinja2,
    pd,
    ds,
    rich.console,
    vl_convert,
    json_lines,
    batchrec.nightly.run,
    tests.faults.children,
    tests.support.ranks,
)

torch.set_num_threads(1)
SHAPE = EncoderShape(objective="causal", max_len=4, hidden_size=4, n_layers=1, n_heads=1, dropout=0.0)
with tempfile.TemporaryDirectory() as folder:
    write_encoder(Encoder(6, SHAPE).eval(), Path(folder))
