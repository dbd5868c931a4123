"""Puts the frames of a film, NUMBER-MILLISECONDS.png each, into one animated PNG: unchanged areas are stored once.
Needs Pillow.

usage: film_png.py FOLDER FILE
"""

import os
import re
import sys

from PIL import Image, ImageChops


def main(folder, target):
    """Reads the frames in their order and writes the picture."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".png"))
    reel = []
    for name in names:
        at = int(re.search(r"-(\d+)\.png$", name).group(1))
        picture = Image.open(os.path.join(folder, name)).convert("RGB")
        if not reel or ImageChops.difference(picture, reel[-1][1]).getbbox():
            reel.append((at, picture))
    last = int(re.search(r"-(\d+)\.png$", names[-1]).group(1))
    ends = [at for at, _ in reel[1:]] + [last + 1000]
    durations = [max(20, end - at) for end, (at, _) in zip(ends, reel)]
    # One palette for all: what frames share has then the same numbers in each.
    whole = Image.new("RGB", (reel[0][1].width, reel[0][1].height * len(reel)))
    for number, (_, picture) in enumerate(reel):
        whole.paste(picture, (0, number * picture.height))
    palette = whole.quantize(256, method=Image.Quantize.MEDIANCUT)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for _, picture in reel]
    pictures[0].save(target, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
    print(f"{len(reel)} of {len(names)} frames, {sum(durations) / 1000:.1f} s, {os.path.getsize(target)} bytes in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
