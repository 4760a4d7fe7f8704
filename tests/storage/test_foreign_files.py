from pathlib import Path

import pytest

from transfer_jax.storage.foreign_files import is_foreign


@pytest.mark.parametrize(
    "path",
    [
        *(".DS_Store", "._manifest.ocdbt", "Thumbs.db", "thumbs.DB", "Thumbs.db:encryptable", "desktop.ini"),
        *(".nfs000000000123", "@eaDir/x.png@SynoEAStream", "state/@eaDir", "#recycle/a", "Icon\r", "x~"),
        *(".~lock.a.csv#", "~$report.docx", "#config.json#", ".config.swp", "__MACOSX/._x", "lost+found"),
        *("$RECYCLE.BIN/x", "System Volume Information/IndexerVolumeGuid", ".Trash-1000/files/a"),
    ],
)
def test_files_of_systems_and_editors(path):
    assert is_foreign(path)
    assert is_foreign(Path("steps") / path)


@pytest.mark.parametrize(
    "path",
    [
        *("_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt", "orbax.checkpoint"),
        *("ocdbt.process_0/d/5204433ebf01", "manifest.ocdbt", "state.npz", "a#b", "a~b", "icon"),
    ],
)
def test_files_of_checkpoints_are_not_foreign(path):
    assert not is_foreign(path)
