"""What the traits of files are called in a check: those that are good to know, and those to look at."""

from __future__ import annotations

from resnetkit.data.inspect import Trait

TRAITS = {
    Trait.ROTATED: "are turned upright by their EXIF orientation",
    Trait.GREY: "are grey",
    Trait.TRANSPARENT: "have transparent pixels, which are laid on white",
    Trait.SIXTEEN_BIT: "have 16 bits a channel, which are scaled to 8",
    Trait.CMYK: "are CMYK, which is converted without a colour profile",
    Trait.PALETTE: "have a palette",
    Trait.ANIMATED: "have more than one frame, of which the first counts",
    Trait.OTHER_ENDING: "are of another format than their name says, which does no harm here",
    Trait.CHANNELS: "have several channels, of which the mean is heard",
}
ODD = {
    Trait.NEAR_SILENT: "are nearly silent: their peak is more than 50 dB below full scale",
    Trait.CLIPPED: "are clipped: the tops of their waves are cut off",
}
