"""Follow the second chunk of a video through CAM and APM, with the tensors of a tiny model.

Hooks on the modules see everything; the pipeline runs as always. `--write docs/streaming-t2v.md` puts the output between the
marks of that page.
"""

import argparse
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from torch.nn.functional import silu

from longvid import LongVideoPipeline, decode_video

MODEL = "longvid/streaming-t2v-tiny"
PROMPT = "a large yellow star moving right on a blue solid background"
BEGIN, END = "<!-- follow -->\n", "<!-- /follow -->"


@contextmanager
def watched(modules):
    """Inputs and output of every call of the modules, by name."""
    calls = {name: [] for name in modules}

    def keep(name, _module, inputs, output):
        calls[name].append((inputs, output))

    handles = [module.register_forward_hook(partial(keep, name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def places(pipe):
    """The modules to look at."""
    mergers = [*pipe.cam.skip_mergers, pipe.cam.mid_merger]
    found = {
        "frame encoder": pipe.cam.frame_encoder,
        "entered": pipe.cam.branch.transformer_in,
        "image tokens": pipe.apm.image_tokens,
        "apm": pipe.apm,
        "unet": pipe.unet,
        "encoder": pipe.vae.encoder,
        "decoder": pipe.vae.decoder,
    }
    for index, merger in enumerate(mergers):
        parts = {"merger": merger, "queries": merger.attention.to_q, "keys": merger.attention.to_k}
        found |= {(name, index): module for name, module in parts.items()}
    return found, mergers


def shape(tensor):
    return "×".join(map(str, tensor.shape))


def share(part, whole):
    """Length of one tensor, in lengths of another."""
    return (part.norm() / whole.norm()).item()


def changes(calls, mergers, step, frames, overlap):
    """How the mergers change the skips, (2, M): in the frames that are made again, and in the new ones."""
    both = []
    for index in range(len(mergers)):
        (hidden, *_), merged = calls["merger", index][step]
        before, after = hidden[:frames], merged[:frames]  # the first branch of the guidance: text and anchor
        parts = (slice(0, overlap), slice(overlap, frames))
        both.append([share(after[part] - before[part], before[part]) for part in parts])
    return torch.tensor(both).T


def attention(calls, merger, index, step, frames):
    """Where in time the most changed pixel looks: (F, F_cond), averaged over the heads; and the pixel."""
    (hidden, *_), merged = calls["merger", index][step]
    moved = (merged - hidden)[:frames].norm(dim=(0, 1))
    pixel = moved.flatten().argmax().item()
    queries, keys = (
        rearrange(calls[name, index][step][1][pixel], "f (n d) -> n f d", n=merger.attention.heads)
        for name in ("queries", "keys")
    )
    weights = (queries @ keys.transpose(1, 2) * merger.attention.scale).softmax(dim=-1)
    return weights.mean(dim=0), divmod(pixel, hidden.shape[-1])


def cam_lines(pipe, calls, mergers, step, start):
    frames, overlap = pipe.config.chunk_size, pipe.config.overlap
    (context,), encoded = calls["frame encoder"][0]
    (first, *_), _ = calls["entered"][step]
    added = rearrange(encoded, "b c f h w -> (b f) c h w")
    alone = first[: len(added)] - added
    yield "CAM, the short-term memory"
    yield f"  context frames {shape(context)} in [{context.min():.2f}, {context.max():.2f}], encoded once: {shape(encoded)}"
    yield f"  added to the first features of the noisy latents: {share(added, alone):.2f} of their length"
    again, new = changes(calls, mergers, step, frames, overlap)
    made_again, made_new = f"{start}-{start + overlap - 1}", f"{start + overlap}-{start + frames - 1}"
    yield f"  merged into the skips: changed by, in frames {made_again:>8} {made_new:>8}"
    for index in range(len(mergers)):
        size = "×".join(map(str, calls["merger", index][step][1].shape[1:]))
        name = f"skip {index}" if index < len(mergers) - 1 else "middle"
        yield f"    {name}: {f'{frames} of {size}':<34} {again[index]:8.3f} {new[index]:8.3f}"
    most = int((again + new).argmax())
    weights, (row, column) = attention(calls, mergers[most], most, step, frames)
    name = f"skip {most}" if most < len(mergers) - 1 else "the middle"
    yield f"  where the most changed pixel of {name}, row {row}, column {column}, looks, in % of its attention"
    yield "    frame   at " + "".join(f"{start + number:5}" for number in range(overlap))
    for frame in (0, overlap - 1, overlap, frames - 1):
        yield f"    {start + frame:5}      " + "".join(f"{100 * weight:5.0f}" for weight in weights[frame])


def apm_lines(pipe, calls):
    (text, embedding), contexts = calls["apm"][0]
    yield "APM, the long-term memory"
    yield f"  anchor {shape(embedding)} -> {pipe.apm.config.num_image_tokens} tokens, beside the text {shape(text)}"
    yield "  text layer" + "".join(f"{layer:8}" for layer in range(len(contexts)))
    gates = [silu(mixer.alpha).item() for mixer in pipe.apm.mixers]
    yield "  gate      " + "".join(f"{gate:8.3f}" for gate in gates)
    yield "  changed by" + "".join(f"{share(context - text, text):8.3f}" for context in contexts)


def guidance_lines(pipe, calls, step, scales):
    (_, _, _), output = calls["unet"][step]
    full, text, blank = output[0].split(1)
    kind = pipe.scheduler.config.prediction_type
    yield f"Guidance, on predictions ({kind}) {shape(full)}"
    yield f"  text:   e(t, 0) - e(0, 0), {share(text - blank, blank):.2f} of the length of e(0, 0), times {scales[0]:g}"
    yield f"  anchor: e(t, a) - e(t, 0), {share(full - text, blank):.2f} of the length of e(0, 0), times {scales[1]:g}"


def output_lines(pipe, calls, latents, before, chunk):
    overlap = pipe.config.overlap
    context = before.state.context["frames"]
    own = decode_video(pipe.vae, latents[:, :, :overlap]).clamp(-1, 1)
    known = context if pipe.config.context == "pixels" else decode_video(pipe.vae, context).clamp(-1, 1)
    video = torch.cat([before.frames, chunk.frames], dim=2)
    steps = 255 * video.diff(dim=2).abs().mean(dim=(0, 1, 3, 4))
    border = chunk.start - 1
    num_decoded = sum(len(inputs[0]) for inputs, _ in calls["decoder"])
    num_encoded = sum(len(inputs[0]) for inputs, _ in calls["encoder"])
    yield "Out, and on"
    yield f"  latents {shape(latents)}; frames encoded: {num_encoded}, decoded: {num_decoded} -> {shape(chunk.frames)}"
    yield f"  its own copy of the context, thrown away, is {127.5 * (own - known).abs().mean():.1f} grey levels from it"
    yield f"  frame {border} to {border + 1}, over the border: {steps[border]:.1f} grey levels; on average {steps.mean():.1f}"
    kept = chunk.state.context
    yield "  kept for the next chunk: " + ", ".join(f"{name} {shape(tensor)}" for name, tensor in kept.items())
    bytes_kept = sum(tensor.nbytes for tensor in kept.values())
    same = torch.equal(kept["anchor"], before.state.context["anchor"])
    yield f"    {bytes_kept / 1000:.0f} kB at any length; the anchor is {'the same' if same else 'another one'}"


@torch.no_grad()
def follow(pipe, prompt=PROMPT, seed=0):
    """Make two chunks and describe the second, line by line."""
    pipe.set_progress_bar_config(disable=True)
    frames, overlap = pipe.config.chunk_size, pipe.config.overlap
    defaults = {**pipe.method_defaults, **(pipe.config.call_defaults or {})}
    text_scale = defaults["guidance_scale"]
    scales = (text_scale, text_scale / 2)  # where they are equal, the branch without anchor is left out
    seen = []

    def keep(_pipe, _step, timestep, tensors):
        seen.append((int(timestep), tensors["latents"]))
        return tensors

    stream = pipe.stream(
        prompt,
        num_frames=2 * frames - overlap,
        generator=torch.Generator().manual_seed(seed),
        anchor_guidance_scale=scales[1],
        callback_on_step_end=keep,
    )
    first = next(stream)
    seen.clear()
    modules, mergers = places(pipe)
    with watched(modules) as calls:
        second = next(stream)
    step = len(seen) // 2
    (sample, *_), _ = calls["unet"][step]
    start = second.start - overlap
    yield f'"{prompt}"'
    yield f"frames {start}-{second.stop - 1}, of which {second.start}-{second.stop - 1} are new"
    yield f"noisy latents at t = {seen[step][0]}, after {step} of {len(seen)} steps: {shape(sample[:1])}"
    yield from ("", *cam_lines(pipe, calls, mergers, step, start))
    yield from ("", *apm_lines(pipe, calls))
    yield from ("", *guidance_lines(pipe, calls, step, scales))
    yield from ("", *output_lines(pipe, calls, seen[-1][1], first, second))


def written(page, text):
    """A page with the text, as a block, between its marks."""
    if not all(page.count(mark) == 1 for mark in (BEGIN, END)):
        raise ValueError(f"expected the marks {BEGIN.strip()} and {END}, once each")
    block = f"{BEGIN}\n```text\n{text}\n```\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the output between the marks of this page")
    arguments = parser.parse_args()
    text = "\n".join(follow(LongVideoPipeline.from_pretrained(arguments.model)))
    print(text)
    if arguments.write is not None:
        page = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(written(page, text), encoding="utf-8")


if __name__ == "__main__":
    main()
