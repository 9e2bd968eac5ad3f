"""Everything that goes wrong between the job and its servers."""
