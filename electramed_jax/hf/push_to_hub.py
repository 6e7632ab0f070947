"""Exported folders to the Hugging Face Hub, each into a repository of its own, as its `from_pretrained` wants them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def name_repositories(repository: str, networks: Mapping[str, str]) -> dict[str, str]:
    """Folder by repository: of "discriminator" and "generator", USER/NAME-discriminator and so on; of "", USER/NAME.

    Raises:
      UserError: no name of a repository.
    """
    if not NAME.fullmatch(repository):
        raise UserError(f"--push={repository!r} is no repository of the Hub; wanted USER/NAME")
    return {f"{repository}-{network}".removesuffix("-"): folder for network, folder in networks.items()}


def push_folders(folders: Mapping[str, str], *, private: bool, message: str) -> dict[str, str]:
    """Uploads each folder into its repository, which is made where it is missing. One commit each.

    The token is that of `hf auth login` or of the variable HF_TOKEN; it is neither read nor shown here.

    Returns:
      The commit's address by repository.

    Raises:
      UserError: a folder that is not on this machine, or the Hub refuses or doesn't answer.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for folder in folders.values():
        if files.local_path(folder) is None:
            raise UserError(f"{folder}: only a local folder can be pushed; export to one, with the same --push")
    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    commits = {}
    for repository, folder in folders.items():
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=files.local_path(folder), commit_message=message)
        except HFValidationError as error:
            raise UserError(f"{repository}: no name for a repository ({error})") from error
        except HfHubHTTPError as error:
            raise UserError(f"{repository}: {_reason(error)}") from error
        except Exception as error:  # of whichever client library below
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise UserError(f"{repository}: the Hub does not answer ({reason}); try the same command later") from error
        commits[repository] = str(commit.commit_url)
    return commits


def _reason(error: Exception) -> str:
    """Without the request, in whose headers the token is."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses (HTTP {status}); hf auth login with a token that may write there, or set HF_TOKEN"
    return f"the Hub answers with HTTP {status}; try again later, or look at https://status.huggingface.co"
