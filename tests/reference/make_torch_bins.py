"""Write the `.bin` files of tests/checkpoint: what PyTorch saves, in both of its formats.

    python tests/reference/make_torch_bins.py      # needs torch; the tests do not

tests/reference/torch_bin/
    zip.bin, legacy.bin    one state dict in the format since torch 1.6 and in the one before (see `tensors`)
    expected.npz           the same values as bit patterns; `dtypes` has the dtype of each, `versions` the torch
    sharded/               two shards and pytorch_model.bin.index.json
    <kind>.bin             files that hold more than tensors (see `OTHERS`)
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent / "torch_bin"
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def tensors():
    """A state dict with each dtype, views with strides, shared storages, odd shapes and a parameter."""
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=draw)
    whole = torch.arange(40, dtype=torch.float32)
    out = {f"dtype.{dtype}".replace("torch.", ""): (base * 50).to(dtype)
           for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8,
                         torch.int16, torch.int32, torch.int64)}
    out |= {"bool": base > 0, "transposed": base.t(), "columns": base[:, 2:5], "every_second": base[::2, 1::3],
            "bfloat16_transposed": base.to(torch.bfloat16).t(), "permuted": base.reshape(2, 3, 8).permute(2, 0, 1),
            "shared.whole": whole, "shared.part": whole[8:20].reshape(3, 4), "shared.last": whole[39:],
            "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "one_row": base[2:3, :4],
            "ünïcode name": torch.ones(2, dtype=torch.int64), "parameter": torch.nn.Parameter(base[:2].clone())}
    return out


def others():
    """name -> object that is not a dict of tensors."""
    linear = torch.nn.Linear(2, 2)
    return {"module": linear, "nested": {"model": linear.state_dict(), "step": 3}, "list": [torch.ones(2)],
            "arguments": {"weight": torch.ones(2), "args": argparse.Namespace(lr=0.1)},
            "complex": {"weight": torch.ones(2, dtype=torch.complex64)},
            "sparse": {"weight": torch.eye(3).to_sparse()}, "expanded": {"weight": torch.ones(1).expand(1000, 1000)}}


def main():
    (ROOT / "sharded").mkdir(parents=True, exist_ok=True)
    content = tensors()
    torch.save(content, ROOT / "zip.bin")
    torch.save(content, ROOT / "legacy.bin", _use_new_zipfile_serialization=False)
    # the newest way to rebuild a tensor
    torch.save({"weight": torch.tensor([0, 1, 2], dtype=torch.uint16)}, ROOT / "uint16.bin")
    bits = {name: tensor.detach().contiguous().reshape(-1).view(BITS[tensor.element_size()]).reshape(tensor.shape)
            for name, tensor in content.items()}
    np.savez_compressed(ROOT / "expected.npz", versions=json.dumps({"torch": torch.__version__.split("+")[0]}),
                        dtypes=json.dumps({name: str(tensor.dtype).replace("torch.", "")
                                           for name, tensor in content.items()}),
                        **{f"value.{name}": value.numpy() for name, value in bits.items()})
    names = list(content)
    halves = {f"pytorch_model-0000{number}-of-00002.bin": part
              for number, part in enumerate((names[:10], names[10:]), 1)}
    for file, part in halves.items():
        torch.save({name: content[name].clone() for name in part}, ROOT / "sharded" / file)
    index = {"metadata": {"total_size": sum(value.nbytes for value in content.values())},
             "weight_map": {name: file for file, part in halves.items() for name in part}}
    (ROOT / "sharded" / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    for name, value in others().items():
        torch.save(value, ROOT / f"{name}.bin")


if __name__ == "__main__":
    main()
