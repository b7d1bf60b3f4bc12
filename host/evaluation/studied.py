"""A study that own models stand beside: its front, its finalists, and the images that judged."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from host.config import StudyConfig, stored_study
from host.data.images import ImageLoader
from host.errors import UsageError
from host.evaluation.entries import Entry, Place, entries_of_study
from host.evaluation.judging import Images, origin_of
from host.store.store import Store
from host.study.data import open_study_data
from host.study.stored import FINGERPRINT, NoFrontError, StudyResult, require_result


@dataclass(frozen=True)
class Studied:
    """What a study found. `origin` tells which images its finalists were judged on."""

    config: StudyConfig
    result: StudyResult
    origin: str

    def places(self, names: Sequence[str] | None) -> list[Place]:
        """Its device profiles of those names, or all of them. Raises UsageError."""
        known = {
            profile.name: Place(profile.name, profile.device, profile.threads, profile.runtime)
            for profile in self.result.front.profiles
        }
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise UsageError(
                f"the study {self.config.name} has no device profile {unknown[0]!r}: it has"
                f" {', '.join(known)}"
            )
        return [known[name] for name in dict.fromkeys(names or known)]

    def images(self) -> Images:
        """The images that it judged finalists on, in the same parts.

        Raises UsageError where they are gone, have changed, or are none.
        """
        name, folder = self.config.name, self.config.data.folder
        data = open_study_data(self.config.data, seed=self.config.seed)
        if not isinstance(data, ImageLoader):
            raise UsageError(f"the data of the study {name} are signals, not images")
        found = Images(data)
        if found.origin != self.origin:
            raise UsageError(f"the images in {folder} are not those that the study {name} had")
        return found

    def entries(self, places: Sequence[Place]) -> list[Entry]:
        """Its finalists and the untrained rest of its front."""
        return entries_of_study(self.result.front, self.result.finalists, places, self.origin)


def studied(store: Store, name: str) -> Studied:
    """What the store holds of a study.

    Raises UnknownStudyError, ConfigError, NoFrontError and OtherVersionError.
    """
    study = store.studies.by_name(name)
    result = require_result(store, study)
    fingerprint = store.studies.result(study.id, FINGERPRINT)
    if fingerprint is None:
        raise NoFrontError(f"the study {name!r} has kept no fingerprint of its data: run it again")
    config = stored_study(study.config_json)
    return Studied(config, result, origin_of(json.loads(fingerprint), config.seed))
