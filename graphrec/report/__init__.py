"""Results as tables, figures and an HTML file."""

from graphrec.report.code_tree import code_tree as code_tree
from graphrec.report.figures import degree_and_reciprocity as degree_and_reciprocity
from graphrec.report.figures import learning_curves as learning_curves
from graphrec.report.figures import log_reliability_diagram as log_reliability_diagram
from graphrec.report.figures import quality_over_time as quality_over_time
from graphrec.report.figures import reliability_diagram as reliability_diagram
from graphrec.report.figures import score_by_slice as score_by_slice
from graphrec.report.figures import two_questions as two_questions
from graphrec.report.html import Html as Html
from graphrec.report.html import write_report as write_report
from graphrec.report.network import NetworkStatistics as NetworkStatistics
from graphrec.report.tables import list_table as list_table
from graphrec.report.tables import mutual_table as mutual_table
from graphrec.report.tables import slice_table as slice_table
from graphrec.report.tables import timing_table as timing_table
