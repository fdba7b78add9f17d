"""Convert a released file of RegionCLIP, or of its proposal network, for configs of this project.

    python tools/convert_regionclip.py regionclip_finetuned-coco_rn50.pth detector.safetensors   # load_from=…
    python tools/convert_regionclip.py rpn_coco_48.pth rpn.safetensors --part rpn    # FrozenRPN

Towers alone need no conversion: ``load_tower("regionclip_pretrained-cc_rn50.pth")`` reads the released file.
"""

import argparse
import sys
from pathlib import Path


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--part", choices=("detector", "rpn"), default="detector")
    args = parser.parse_args(argv)
    from ovseg.compat.checkpoint import read_checkpoint, save_safetensors
    from ovseg.detectors.regionclip_convert import detector_state, rpn_state

    try:
        state = read_checkpoint(args.source)
        state = detector_state(state) if args.part == "detector" else rpn_state(state)
    except (ValueError, FileNotFoundError) as error:
        print(f"tools/convert_regionclip.py: {error}", file=sys.stderr)
        return 2
    save_safetensors(args.out, {name: value.contiguous().clone() for name, value in state.items()}, {})
    print(f"{args.out}: {len(state)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
