"""Build `quickstart.ipynb` from the cells below and run it, so that its outputs are real and visible on the page.

`python build_quickstart.py` writes the notebook; with `--check` it runs the cells again and complains if the notebook
of this folder has other cells or no outputs, without touching it.
"""

import re
import sys
import tempfile
import textwrap
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent / "quickstart.ipynb"

CELLS = """
%% text
# longvid in five minutes

This notebook runs on a CPU. It uses the tiny model that comes with the package: 64×64 pixels, trained by us on a small
drawn world.
%% code
from longvid import LongVideoPipeline

pipe = LongVideoPipeline.from_pretrained("longvid/art-v-tiny")
pipe.set_progress_bar_config(disable=True)
%% text
## A video is a call

`frames[0]` is the first video, an array of shape (frames, height, width, 3) with values in [0, 1].
%% code
import torch

prompt = "a red circle moving right on a blue checkered background"
video = pipe(prompt, num_frames=64, generator=torch.Generator().manual_seed(3)).frames[0]
video.shape, float(video.min()), float(video.max())
%% code
from IPython.display import Image
from longvid import VideoWriter, contact_sheet


def show(frames, path="clip.gif"):
    with VideoWriter(path, fps=8) as writer:
        writer.write(frames)
    return Image(path, width=256)


show(video)
%% text
All 64 frames on one page, row by row:
%% code
contact_sheet(video, "sheet.png", columns=16)
Image("sheet.png")
%% text
## A long video is a stream

`stream` yields every frame when it is ready. It needs the same memory for ten frames as for ten thousand, and the
frames are the same, bit for bit, as those of a call.
%% code
for chunk in pipe.stream(prompt, num_frames=10_000, generator=torch.Generator().manual_seed(3)):
    if chunk.start == 7:
        break

chunk.start, tuple(chunk.frames.shape), abs(chunk.frames[0, :, 0].permute(1, 2, 0).numpy() - video[7]).max()
%% text
## A story is several prompts

Every prompt gets its own frames. What a later prompt leaves out, the model has to remember.
%% code
story = ["a large yellow star moving left on a green background", "the star moving up", "the star spinning"]
frames = pipe(story, frames_per_prompt=24, generator=torch.Generator().manual_seed(5)).frames[0]
show(frames)
%% text
## It starts from an image, too

The image becomes frame 0, and the model goes on from there. Here it is the last frame of the video above.
%% code
continued = pipe(
    "a red circle moving down on a blue checkered background",
    image=video[-1],
    num_frames=24,
    generator=torch.Generator().manual_seed(1),
).frames[0]
show(continued)
%% text
## What is copied, and what is drawn

ART-V predicts a mask: near 1 the frame before is copied, near 0 something new is drawn. Below are frames 1 to 16 and
the mean of the masks that were predicted on the way to each.
%% code
output = pipe(
    prompt, num_frames=17, generator=torch.Generator().manual_seed(3), output_type="pt", output_masks=True
)
masks = torch.nn.functional.interpolate(output.masks.mean(dim=1), scale_factor=8, mode="nearest")[0, 1:]
pairs = torch.cat([output.frames[0, 1:], masks[:, None].expand(-1, 3, -1, -1)])
contact_sheet(pairs, "masks.png", columns=16)
Image("masks.png")
%% text
## It is a diffusers pipeline

So is the rest: any scheduler, callbacks, dtypes, devices, offloading, saving and loading.
%% code
from diffusers import DDIMScheduler

pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
frames = pipe(prompt, num_frames=16, num_inference_steps=20, generator=torch.Generator().manual_seed(3)).frames[0]
show(frames)
"""


def cells():
    make = {"text": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    for kind, source in re.findall(r"^%% (\w+)\n(.*?)\s*(?=^%%|\Z)", CELLS, re.MULTILINE | re.DOTALL):
        yield make[kind](source)


def executed():
    notebook = nbformat.v4.new_notebook(cells=list(cells()))
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same notebook gets the same file
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":  # progress bars and the like
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def check(fresh):
    stored = nbformat.read(NOTEBOOK, as_version=4)
    if [cell.source for cell in stored.cells] != [cell.source for cell in fresh.cells]:
        sys.exit(f"{NOTEBOOK.name} has other cells than build_quickstart.py; run it to write the notebook again")
    pairs = zip(fresh.cells, stored.cells, strict=True)
    bare = [cell.source for ours, cell in pairs if ours.get("outputs") and not cell.outputs]
    if bare:
        sys.exit(textwrap.shorten(f"{NOTEBOOK.name} lacks the outputs of: {bare}", 300))


def main():
    notebook = executed()
    if "--check" in sys.argv[1:]:
        check(notebook)
    else:
        nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
