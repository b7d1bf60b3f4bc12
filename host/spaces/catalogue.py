"""The search spaces by name, as `[space]` of a study names them."""

from collections.abc import Mapping

from host.errors import UsageError
from host.spaces.base import Choices, SearchSpace
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201
from host.spaces.resnet_lite import ResNetLite
from host.spaces.staged import StagedSpace

_STAGED: tuple[type[StagedSpace], ...] = (Mobile, ResNetLite, Conv1d)

SPACES: Mapping[str, type[NasBench201] | type[StagedSpace]] = {
    NasBench201.name: NasBench201,
    **{space.name: space for space in _STAGED},
}
"""Every space whose candidates are networks of ours; a user's own files are `onnx_files`."""


def space_by_name(
    name: str, *, restrict: Mapping[str, Choices] | None = None, resolution: int | None = None
) -> SearchSpace:
    """The space of that name, its decisions narrowed to what `restrict` keeps.

    `resolution` is the side of nasbench201's images, which is no decision of that space. Raises
    UsageError for a name that is none and for a resolution elsewhere, SpaceChoiceError for a
    restriction to what the space does not offer.
    """
    kept = dict(restrict or {})
    if name == NasBench201.name:
        return NasBench201(resolution=resolution or 32, restrict=kept)
    for space in _STAGED:
        if space.name == name:
            if resolution is not None:
                raise UsageError(
                    f"the space '{name}' decides its resolution: restrict that instead"
                )
            return space(kept)
    raise UsageError(f"there is no space {name!r}; choose from {', '.join(SPACES)}")
