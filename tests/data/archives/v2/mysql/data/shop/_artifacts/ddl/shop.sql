-- Written by moveout for the `mysql` client. Load it with a user that may create all of this.
SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET foreign_key_checks = 0;

CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET latin1 COLLATE latin1_swedish_ci */;
USE `shop`;

SET sql_mode = '';
CREATE TABLE `colours` (
  `name` varchar(20) NOT NULL,
  `red` smallint(6) NOT NULL,
  `since` date DEFAULT NULL,
  PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;

SET sql_mode = '';
CREATE TABLE `orders` (
  `at` datetime(6) NOT NULL,
  `id` int(10) unsigned NOT NULL,
  `reference` uuid DEFAULT NULL,
  `detail` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`detail`)),
  `price` decimal(10,2) DEFAULT NULL,
  `note` varchar(50) DEFAULT NULL,
  PRIMARY KEY (`at`,`id`)
) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;

