"""Real molecules to bring, and what a published dataset holds, read back."""

import pyarrow.parquet as pq

from tasks.simulation.molecules import embedded_structures, rdkit_data_directory


def real_molecules(count):
    return embedded_structures(rdkit_data_directory())["smiles"].to_pylist()[:count]


def tables(dataset, partner):
    files = dataset.files(partner)
    return {name: pq.read_table(getattr(files, name)) for name in ("assays", "activities", "structures")}


def content(dataset):
    """All tables of all companies, for comparison."""
    return {name: tables(dataset, name) for name in dataset.partners}


def file_bytes(dataset):
    return {
        str(path.relative_to(dataset.path)): path.read_bytes()
        for path in sorted(dataset.path.rglob("*"))
        if path.is_file()
    }


def ids(table, column):
    return table[column].to_pylist()
