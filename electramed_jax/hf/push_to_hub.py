"""Uploads exported folders to the Hugging Face Hub, each into its own repository, as `from_pretrained` requires."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.folder_lock import LOCK_FILE

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def name_repositories(repository: str, networks: Mapping[str, str]) -> dict[str, str]:
    """Returns {repository: folder}: USER/NAME-discriminator for the network "discriminator", USER/NAME for "".

    Args:
      repository: USER/NAME.
      networks: folder by network.

    Raises:
      UserError: `repository` is not a valid name.
    """
    if not NAME.fullmatch(repository):
        raise UserError(f"--push={repository!r} is not a repository name of the Hub; wanted USER/NAME")
    return {f"{repository}-{network}".removesuffix("-"): folder for network, folder in networks.items()}


def push_folders(folders: Mapping[str, str], *, private: bool, message: str, tag: str | None = None) -> dict[str, str]:
    """Uploads each folder into its repository in one commit, and tags it. Missing repositories are created.

    huggingface_hub takes the token of `hf auth login` or of the variable HF_TOKEN; it is not read or shown here.

    Args:
      folders: local folder by repository.
      private: create missing repositories as private ones.
      message: of the commits.
      tag: of the commits, new in each repository; None: they get none.

    Returns:
      URL of the commit by repository.

    Raises:
      UserError: a folder is remote, the tag exists, or the Hub rejects the request or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    paths: dict[str, str] = {}
    for repository, folder in folders.items():
        path = files.local_path(folder)
        if path is None:
            raise UserError(f"{folder}: only a local folder can be uploaded; set --output to one, with the same --push")
        paths[repository] = path
    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    commits = {}
    for repository, path in paths.items():
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            if tag is not None and tag in (one.name for one in api.list_repo_refs(repository).tags):
                raise UserError(f"{repository}: has a revision with the tag {tag!r} already; choose another --tag")
            commit = api.upload_folder(
                repo_id=repository, folder_path=path, commit_message=message, ignore_patterns=[LOCK_FILE]
            )
            if tag is not None:
                api.create_tag(repository, tag=tag, revision=commit.oid)
        except UserError:
            raise
        except HFValidationError as error:
            raise UserError(
                f"{repository}: not a valid repository name ({error}); choose another one with --push"
            ) from error
        except HfHubHTTPError as error:
            raise UserError(f"{repository}: {_reason(error)}") from error
        except Exception as error:  # of any HTTP library that huggingface_hub uses
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise UserError(f"{repository}: the Hub cannot be reached ({reason}); repeat the command later") from error
        commits[repository] = str(commit.commit_url)
    return commits


def _reason(error: Exception) -> str:
    """Returns the reason without the request, because its headers contain the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses (HTTP {status}); run hf auth login with a token that may write there, or set HF_TOKEN"
    return f"the Hub answers with HTTP {status}; repeat the command later, or see https://status.huggingface.co"
