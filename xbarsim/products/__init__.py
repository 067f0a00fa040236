"""Products: how levels at the wordlines become numbers at the outputs; one module for each way to compute them.

All are prepared once from a chip's cells, and multiply panels of vectors.
"""

from xbarsim.products.adc import Adc
from xbarsim.products.bank import converter_columns, number_of_converters
from xbarsim.products.converted import ConvertedProduct
from xbarsim.products.linear import LinearProduct
from xbarsim.products.percell import PerCellProduct
from xbarsim.products.plain import ExactProduct, Product, plain_product
from xbarsim.products.solved import SolvedProduct
from xbarsim.products.whole import BitSerialProduct, CollapsedProduct, collapses, fits_words, whole_columns

__all__ = [
    "Adc",
    "BitSerialProduct",
    "CollapsedProduct",
    "ConvertedProduct",
    "ExactProduct",
    "LinearProduct",
    "PerCellProduct",
    "Product",
    "SolvedProduct",
    "collapses",
    "converter_columns",
    "fits_words",
    "number_of_converters",
    "plain_product",
    "whole_columns",
]
